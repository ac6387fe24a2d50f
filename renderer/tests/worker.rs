//! How a render ends when the renderer's process fails, and what that process is not able to do.

#![allow(clippy::unwrap_used)]

mod texts;

use std::{fmt::Write as _, fs, path::Path, process::Command, time::Duration};

use proptest::{prelude::*, sample::Index};
use renderer::{Limits, Object, Renderer, RendererError, Unrendered, fuzzing};
use serde_json::json;
use texts::{Script, Texts, bytes_of, children, real};
use worker::Cancel;

fn one_map() -> Texts {
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
    Texts::of(&[("app/kustomization.yaml", "resources: [a.yaml]\n"), ("app/a.yaml", map)])
}

/// The question for the kustomization of [`one_map`].
const ENTRY: (char, &str) = ('Q', "app/kustomization.yaml");

/// A script that gives one good result for [`one_map`], and runs `then` when it gets the next request.
fn good_once(then: &str) -> Script {
    let script = Script::sending(&[ENTRY, ('M', &result_from(ENTRY.1))]);
    // A request for the folder `app` has 33 bytes with its head, and the answer to the question has 25.
    let lines = format!("cat \"${{0%/*}}/frames\"; head -c 58 >/dev/null\nhead -c 33 >/dev/null; {then}");
    fs::write(script.program(), format!("#!/bin/sh\n{lines}\n")).unwrap();
    script
}

fn render(renderer: &Renderer, texts: &Texts) -> Result<Vec<Object>, RendererError> {
    renderer.kustomize("app", texts, &Cancel::new()).map_err(|error| match error {
        Unrendered::Renderer(error) => error,
        Unrendered::Repository(never) => match never {},
    })
}

fn fails(script: &str, limits: Limits) -> RendererError {
    render(&Script::new(script).renderer(limits), &one_map()).expect_err(script)
}

#[test]
fn a_process_that_fails_is_told_of_as_it_failed() {
    let died = fails("echo trouble >&2; exit 3", Limits::default());
    assert!(matches!(&died, RendererError::Died(how) if how.contains("trouble")), "{died}");
    let died = fails("kill -9 $$", Limits::default());
    assert!(matches!(&died, RendererError::Died(how) if how.contains('9')), "{died}");
    let silent = fails("exit 0", Limits::default());
    assert!(matches!(silent, RendererError::Died(_)), "{silent}");
    // Half a frame, a frame of an unknown kind, a frame that is too long, invalid JSON, and a frame that only the other side
    // may send.
    for (frame, limits) in [
        (r"printf '\000\000\001\000M{'", Limits::default()),
        (r"printf '\000\000\000\002Zx'; cat >/dev/null", Limits::default()),
        (r"printf '\000\000\001\000M'; cat >/dev/null", Limits { answer: 16, ..Limits::default() }),
        (r"printf '\000\000\000\003M{x'; cat >/dev/null", Limits::default()),
        (r"printf '\000\000\000\001F'; cat >/dev/null", Limits::default()),
    ] {
        let error = fails(frame, limits);
        assert!(matches!(error, RendererError::Protocol(_) | RendererError::Died(_)), "{frame}: {error}");
        assert!(!error.is_terminal(), "{frame}");
    }
}

#[test]
fn a_process_that_hangs_is_killed() {
    let limits = Limits { time: Duration::from_millis(300), ..Limits::default() };
    for script in ["exec sleep 1000", "cat >/dev/null; exec sleep 1000"] {
        let error = fails(script, limits);
        assert!(matches!(error, RendererError::TimedOut(_)), "{script}: {error}");
    }
    // The render is cancelled before it begins.
    let cancel = Cancel::new();
    cancel.cancel();
    let renderer = Script::new("exec sleep 1000").renderer(Limits::default());
    let end = renderer.kustomize("app", &one_map(), &cancel);
    assert!(matches!(end, Err(Unrendered::Renderer(RendererError::Cancelled | RendererError::Start { .. }))));
}

#[test]
fn nobody_is_asked_for_what_is_outside_or_for_ever() {
    let outside = Script::new(r"printf '\000\000\000\016Q../etc/passwd'; cat >/dev/null");
    let texts = one_map();
    let error = render(&outside.renderer(Limits::default()), &texts).expect_err("it asks for what is outside");
    assert!(matches!(error, RendererError::Protocol(_)), "{error}");
    assert_eq!(*texts.asked.lock().unwrap(), [""; 0]);

    let limits = Limits { asks: 10, ..Limits::default() };
    let error = fails(r"while :; do printf '\000\000\000\002Qa' || exit 1; done", limits);
    assert!(matches!(error, RendererError::Asks(10)), "{error}");
}

#[test]
fn long_paths_and_failures_are_not_passed_on() {
    // One byte more than the longest path, and then a failure.
    let path = r"printf '\000\000\020\002Q'; head -c 4097 /dev/zero | tr '\0' a; sleep 0.1; printf '\000\000\000\017E{\042message\042:\042\042}'; cat >/dev/null";
    let (script, texts) = (Script::new(path), one_map());
    let error = render(&script.renderer(Limits::default()), &texts).expect_err("it fails");
    assert!(matches!(error, RendererError::Failed(_)), "{error}");
    assert_eq!(*texts.asked.lock().unwrap(), [""; 0]);

    let error = fails(r"printf '\000\001\000\002E'; cat >/dev/null", Limits::default());
    assert!(matches!(&error, RendererError::Protocol(why) if why.contains("a failure of")), "{error}");
}

/// A result with one object, which is said to be from `origin`.
fn result_from(origin: &str) -> String {
    let object = json!({"origin": origin, "yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: forged}\n"});
    json!({"objects": [object]}).to_string()
}

#[test]
fn a_result_that_does_not_fit_what_was_read_is_a_lie() {
    let told = |frames: &[(char, &str)]| {
        let texts = one_map();
        let end = render(&Script::sending(frames).renderer(Limits::default()), &texts);
        (end, texts.asked.into_inner().unwrap())
    };
    let with = |reads: &[(char, &str)], result: &str| told(&[reads, &[('M', result)]].concat());
    for (reads, origin, lie) in [
        // It has read nothing.
        (&[][..], "", "it has not read 'app/kustomization.yaml'"),
        (&[], "app/kustomization.yaml", "it has not read 'app/kustomization.yaml'"),
        // It has read another file, or seen that the kustomization exists.
        (&[('Q', "app/a.yaml")], "app/a.yaml", "it has not read 'app/kustomization.yaml'"),
        (&[('Q', "app")], "", "it has not read 'app/kustomization.yaml'"),
        // It names a file that it has not asked for, that does not exist, or that is a folder.
        (&[ENTRY], "app/a.yaml", "from 'app/a.yaml', which it has not read"),
        (&[ENTRY, ('Q', "app/gone.yaml")], "app/gone.yaml", "from 'app/gone.yaml', which it has not read"),
        (&[ENTRY, ('Q', "app")], "app", "from 'app', which it has not read"),
        (&[ENTRY], "app/kustomization.yaml/../a.yaml", "which it has not read"),
        (&[ENTRY], "../../etc/passwd", "from '../../etc/passwd', which it has not read"),
    ] {
        let (end, asked) = with(reads, &result_from(origin));
        let error = end.expect_err(lie);
        assert!(matches!(error, RendererError::Lied(_)), "{error}");
        assert!(error.to_string().contains(lie), "{error} instead of {lie}");
        assert_eq!((error.reason(), error.is_terminal()), ("RendererFailed", false));
        // What it asked for is counted here, whatever it says.
        assert_eq!(asked, reads.iter().map(|(_, path)| *path).collect::<Vec<_>>());
    }
    let of_request = json!({"objects": [{"index": 0, "yaml": "kind: ConfigMap"}]}).to_string();
    let error = with(&[ENTRY], &of_request).0.expect_err("the request has no objects");
    assert!(matches!(error, RendererError::Lied(_)), "{error}");
    let long = "a".repeat(1 << 16);
    let error = with(&[ENTRY], &result_from(&long)).0.expect_err("no such file").to_string();
    assert!(error.len() < 1000, "{} bytes", error.len());

    // This one has read what it names.
    let (end, asked) = with(&[ENTRY, ('Q', "app/a.yaml")], &result_from("app/a.yaml"));
    assert_eq!((end.unwrap().len(), asked.len()), (1, 2));
}

proptest! {
    /// The fuzz target `frames` does the same with more patience.
    #[test]
    fn frames_with_changed_bytes_are_refused_or_fit_what_was_read(
        is_failure in any::<bool>(),
        changes in proptest::collection::vec((any::<Index>(), any::<u8>()), 0..6),
    ) {
        let (result, failure) = (result_from("app/a.yaml"), r#"{"message":"a"}"#);
        let end = if is_failure { ('E', failure) } else { ('M', result.as_str()) };
        let mut frames = bytes_of(&[ENTRY, ('Q', "app"), ('Q', "app/a.yaml"), end]);
        for (place, byte) in &changes {
            *place.get_mut(&mut frames) = *byte;
        }
        let texts = one_map();
        let limits = Limits { files: 4096, asks: 16, answer: 64 << 10, ..Limits::default() };
        let believed = fuzzing::kustomize(&frames, "app", &texts, &limits);
        let asked = texts.asked.into_inner().unwrap();
        let is_read = |path: &str| asked.iter().any(|known| known == path) && texts.files.contains_key(path);
        if changes.is_empty() {
            prop_assert_eq!(believed.is_some(), !is_failure, "what is right is believed");
        }
        for Object { origin, .. } in believed.iter().flatten() {
            prop_assert!(origin.is_empty() || is_read(origin), "{}", origin);
        }
        prop_assert!(believed.is_none() || is_read(ENTRY.1));
    }
}

#[test]
fn a_process_that_lied_gets_no_other_request() {
    let (good, forged) = (result_from(ENTRY.1), result_from("").replace("forged", "next"));
    // After its result, the process sends what would be taken for the answer to the next request.
    let script = Script::sending(&[ENTRY, ('M', &good), ENTRY, ('M', &forged)]);
    let renderer = script.renderer(Limits::default());
    for _ in 0..3 {
        let objects = render(&renderer, &one_map()).unwrap();
        assert!(objects[0].yaml.contains("forged"), "{}", objects[0].yaml);
    }
    // This process gives one good result, and a wrong one to whoever comes next.
    let script = good_once(r#"printf '\000\000\000\017M{"objects":[]}'; cat >/dev/null"#);
    let renderer = script.renderer(Limits::default());
    for _ in 0..3 {
        assert_eq!(render(&renderer, &one_map()).unwrap().len(), 1);
    }
}

#[test]
fn what_a_kustomization_names_outside_of_the_repository_is_looked_for_inside() {
    let renderer = Renderer::new(&real(), Limits::default());
    for resource in ["/etc/passwd", "../../../../../etc/passwd", "/proc/self/environ"] {
        let kustomization =
            format!("resources: ['{resource}']\nconfigMapGenerator:\n- {{name: a, files: ['{resource}']}}\n");
        let texts = Texts::of(&[("app/kustomization.yaml", &kustomization)]);
        let error = render(&renderer, &texts).expect_err(resource);
        assert!(matches!(error, RendererError::Failed(_)), "{resource}: {error}");
        let asked = texts.asked.lock().unwrap();
        assert!(asked.iter().all(|path| !path.starts_with('/') && !path.contains("..")), "{asked:?}");
    }
}

#[test]
fn one_process_renders_again_and_again_and_another_follows_it() {
    // Other tests start processes, too. This memory limit is used only here, so it tells the processes of this test from
    // others.
    let memory = (200 << 20) + 4096;
    let children = || children(memory);
    let renderer = Renderer::new(&real(), Limits { memory, ..Limits::default() });
    let first = render(&renderer, &one_map()).unwrap();
    assert_eq!((first.len(), first[0].origin.as_str()), (1, "app/a.yaml"));
    let wrong = Texts::of(&[("app/kustomization.yaml", "resources: [gone.yaml]\n")]);
    let error = render(&renderer, &wrong).expect_err("a file is missing");
    assert!(matches!(&error, RendererError::Failed(message) if message.contains("gone.yaml")), "{error}");
    assert!(error.is_terminal());
    let before = children();
    assert_eq!(render(&renderer, &one_map()).unwrap(), first);
    assert_eq!(children(), before, "the process is the same");
    for pid in before {
        Command::new("kill").args(["-9", &pid]).status().unwrap();
    }
    while !children().is_empty() {
        std::thread::yield_now();
    }
    assert_eq!(render(&renderer, &one_map()).unwrap(), first);
}

#[test]
fn what_an_earlier_render_left_in_memory_fails_no_other_render() {
    let script = good_once("echo 'fatal error: out of memory' >&2; exit 2");
    let renderer = script.renderer(Limits::default());
    for _ in 0..3 {
        assert_eq!(render(&renderer, &one_map()).unwrap().len(), 1);
    }
}

#[test]
fn what_is_read_is_known_to_who_is_asked() {
    let base = "resources: [a.yaml]\n";
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
    let texts = Texts::of(&[
        ("app/kustomization.yaml", "resources: [../base]\n"),
        ("base/kustomization.yaml", base),
        ("base/a.yaml", map),
        ("base/README.md", "not read"),
        ("other/kustomization.yaml", base),
    ]);
    render(&Renderer::new(&real(), Limits::default()), &texts).unwrap();
    let asked = texts.asked.lock().unwrap();
    for path in ["app/kustomization.yaml", "base/kustomization.yaml", "base/a.yaml"] {
        assert!(asked.iter().any(|known| known == path), "{asked:?} without {path}");
    }
    assert!(asked.iter().all(|path| !path.starts_with("other") && !path.contains("README")), "{asked:?}");
    let times = |path: &str| asked.iter().filter(|known| *known == path).count();
    assert_eq!(times("base/a.yaml"), 1);
}

#[test]
fn memory_ends_at_its_limit() {
    let mut map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n".to_owned();
    for key in 0..400_000 {
        writeln!(map, "  k{key}: v").unwrap();
    }
    let texts = Texts::of(&[("app/kustomization.yaml", "resources: [a.yaml]\n"), ("app/a.yaml", &map)]);
    let limits = Limits { memory: 128 << 20, ..Limits::default() };
    let error = render(&Renderer::new(&real(), limits), &texts).expect_err("it needs more");
    assert!(matches!(error, RendererError::Memory(_)), "{error}");
    assert!(error.is_terminal());
    let few = Limits { files: 1 << 20, ..Limits::default() };
    let error = render(&Renderer::new(&real(), few), &texts).expect_err("its files are larger");
    assert!(matches!(error, RendererError::Files(_)), "{error}");
}

/// Runs the tests in Go: those of the worker, and those which check that a confined process cannot open a file, use the network,
/// or start a program.
#[test]
fn the_workers_own_tests_pass() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("go");
    let output = Command::new("go")
        .args(["test", "-trimpath", "./...", "gitseal.dev/confine"])
        .current_dir(folder)
        .env("CGO_ENABLED", "0")
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{text}");
}
