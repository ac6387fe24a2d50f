//! Checks rules for `deploy/Containerfile`, without building the image.

use std::{fs, path::Path};

/// The instructions with their arguments. Continued lines are joined, and comments are removed.
fn instructions(text: &str) -> Vec<(String, String)> {
    let joined = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .map(|line| line.strip_suffix('\\').map_or_else(|| format!("{line}\n"), |line| format!("{line} ")))
        .collect::<String>();
    let split = |line: &str| {
        let (name, rest) = line.trim().split_once(' ')?;
        Some((name.to_ascii_uppercase(), rest.trim().to_owned()))
    };
    joined.lines().filter_map(split).collect()
}

/// The problems of a Containerfile.
fn problems(text: &str) -> Vec<String> {
    let all = instructions(text);
    let of = |name: &str| all.iter().filter(move |(n, _)| n == name).map(|(_, rest)| rest.as_str()).collect::<Vec<_>>();
    let mut problems = Vec::new();
    let bases = of("FROM");
    if bases.len() < 2 {
        problems.push("one stage: the compiler would be in the image".to_owned());
    }
    for base in &bases {
        let image = base.split_whitespace().find(|word| !word.starts_with("--")).unwrap_or_default();
        let tag = image.rsplit('/').next().and_then(|name| name.split_once([':', '@'])).map_or("", |(_, tag)| tag);
        if tag.is_empty() || tag == "latest" {
            problems.push(format!("{image}: pin a tag other than latest"));
        }
    }
    let last_stage = all.iter().rposition(|(name, _)| name == "FROM").unwrap_or_default();
    let last = |name: &str| all[last_stage..].iter().rfind(|(n, _)| n == name).map(|(_, rest)| rest.as_str());
    let user = last("USER").unwrap_or_default();
    let is_number = |text: &str| text.parse::<u32>().is_ok_and(|id| id > 0);
    if user.is_empty() || !user.split(':').all(is_number) {
        problems.push(format!("USER {user:?}: a number other than 0, which runAsNonRoot can check"));
    }
    let changes_root = |(name, _): &(String, String)| name == "RUN" || name == "COPY" || name == "ADD";
    let user_at = all.iter().rposition(|(name, _)| name == "USER").unwrap_or_default();
    if all[user_at..].iter().any(changes_root) {
        problems.push("the last USER comes before something that writes".to_owned());
    }
    problems
        .extend(of("ADD").iter().filter(|rest| rest.contains("://")).map(|rest| format!("ADD {rest}: not verified")));
    if of("COPY").iter().any(|rest| rest.split_whitespace().any(|word| word == ".")) {
        problems.push("COPY .: name what the image is made of".to_owned());
    }
    for run in of("RUN").iter().filter(|run| run.contains("sudo") || run.contains("chmod 777")) {
        problems.push(format!("RUN {run}: no sudo, nothing writable by all"));
    }
    match last("ENTRYPOINT") {
        Some(entry) if serde_json::from_str::<Vec<String>>(entry).is_ok_and(|words| !words.is_empty()) => {}
        _ => problems.push("ENTRYPOINT in exec form: signals must reach the program".to_owned()),
    }
    problems
}

#[test]
fn the_image_of_the_controller_is_sound() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/Containerfile");
    let text = fs::read_to_string(path).expect("deploy/Containerfile");
    assert_eq!(problems(&text), Vec::<String>::new());
    let users: Vec<_> = instructions(&text).into_iter().filter(|(name, _)| name == "USER").collect();
    assert_eq!(users, [("USER".to_owned(), "65532:65532".to_owned())], "the Deployment's runAsUser");
}

#[test]
fn everything_copied_into_the_image_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = fs::read_to_string(root.join("deploy/Containerfile")).expect("deploy/Containerfile");
    let copied: Vec<String> = instructions(&text)
        .into_iter()
        .filter(|(name, rest)| name == "COPY" && !rest.starts_with("--"))
        .flat_map(|(_, rest)| {
            let words: Vec<_> = rest.split_whitespace().map(str::to_owned).collect();
            words[..words.len() - 1].to_vec()
        })
        .collect();
    assert!(copied.len() > 2, "{copied:?}");
    for path in &copied {
        assert!(root.join(path).exists(), "{path} does not exist");
    }
    let workspace = fs::read_to_string(root.join("Cargo.toml")).expect("Cargo.toml");
    let members = workspace.lines().find(|line| line.starts_with("members")).expect("members");
    for member in members.split('"').skip(1).step_by(2) {
        let top = member.split('/').next().unwrap_or(member);
        assert!(copied.iter().any(|path| path == top), "{member} is not copied: cargo would refuse the workspace");
    }
}

/// The programs that are missing in the image: the entry point, and those that it starts or that administrators run in the
/// Pod, must be built, copied out of the cache of the build, and copied into the last stage, all into one folder.
fn missing_programs(text: &str) -> Vec<String> {
    const PROGRAMS: [&str; 4] = ["gitseal-controller", "gitseal", "gitseal-renderer", "gitseal-ssh"];
    let all = instructions(text);
    let last_stage = all.iter().rposition(|(name, _)| name == "FROM").unwrap_or_default();
    let (build, last) = all.split_at(last_stage);
    let copies = last.iter().filter(|(name, rest)| name == "COPY" && rest.starts_with("--from=build "));
    let copied: Vec<_> = copies.flat_map(|(_, rest)| rest.split_whitespace().skip(1)).collect();
    let run: Vec<_> = build.iter().filter(|(name, _)| name == "RUN").collect();
    let mut missing = Vec::new();
    for program in PROGRAMS {
        let has = |words: &[&str], wanted: String| words.contains(&wanted.as_str());
        if !has(&copied, format!("/{program}")) {
            missing.push(format!("{program} is not copied into the image"));
        }
        let built = |(_, rest): &(String, String)| {
            has(&rest.split_whitespace().collect::<Vec<_>>(), format!("target/release/{program}"))
        };
        if !run.iter().any(|one| built(one)) {
            missing.push(format!("{program} is not copied out of the cache"));
        }
    }
    let is_destination = |word: &&str| word.ends_with('/');
    if copied.iter().filter(|word| is_destination(word)).any(|folder| *folder != "/usr/local/bin/") {
        missing.push("a program is not beside the others".to_owned());
    }
    for path in copied.iter().filter(|word| !is_destination(word)) {
        if !PROGRAMS.iter().any(|program| *path == format!("/{program}")) {
            missing.push(format!("{path} is none of the programs"));
        }
    }
    missing
}

#[test]
fn the_image_has_all_programs_beside_each_other() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/Containerfile");
    let text = fs::read_to_string(path).expect("deploy/Containerfile");
    assert_eq!(missing_programs(&text), Vec::<String>::new());
    for (from, to) in [
        ("/gitseal /gitseal-renderer /gitseal-ssh /usr/local/bin/", "/gitseal /gitseal-ssh /usr/local/bin/"),
        (" target/release/gitseal-renderer", ""),
        ("/gitseal-renderer /gitseal-ssh /usr/local/bin/", "/gitseal-rendrer /gitseal-ssh /usr/local/bin/"),
        ("/gitseal-ssh /usr/local/bin/", "/usr/local/bin/\nCOPY --from=build /gitseal-ssh /usr/local/libexec/"),
        ("COPY --from=build", "COPY --from=go"),
    ] {
        let bad = text.replace(from, to);
        assert!(bad != text && !missing_programs(&bad).is_empty(), "not found: {to}");
    }
    // Each name of `--from` is that of a stage.
    let all = instructions(&text);
    let stages = all.iter().filter(|(name, _)| name == "FROM").filter_map(|(_, rest)| Some(rest.split_once(" AS ")?.1));
    let stages: Vec<_> = stages.collect();
    for from in all.iter().filter_map(|(_, rest)| rest.strip_prefix("--from=")?.split_whitespace().next()) {
        assert!(stages.contains(&from), "--from={from} is none of {stages:?}");
    }
}

#[test]
fn each_rule_finds_its_violation() {
    let good = "FROM rust:1.95 AS build\nRUN make\nFROM debian:13\nCOPY --from=build /a /a\nUSER 65532:65532\nENTRYPOINT [\"/a\"]\n";
    assert_eq!(problems(good), Vec::<String>::new());
    for (from, to) in [
        ("FROM rust:1.95 AS build\nRUN make\n", ""),
        ("debian:13", "debian"),
        ("debian:13", "debian:latest"),
        ("65532:65532", "gitseal"),
        ("65532:65532", "0"),
        ("RUN make", "ADD https://files.example/a /a"),
        ("RUN make", "COPY . ."),
        ("RUN make", "RUN sudo make"),
        ("[\"/a\"]", "/a"),
        ("ENTRYPOINT", "RUN touch /x\nENTRYPOINT"),
    ] {
        let bad = good.replace(from, to);
        assert!(!problems(&bad).is_empty(), "not found: {to}");
    }
}
