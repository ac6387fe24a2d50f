//! File names with control characters in the output of the program.

use crate::workplace::Workplace;
use crate::{stderr, stdout};

/// On a terminal, this would clear the screen, delete text, reverse the text after it, and begin another line.
const HOSTILE: &str = "te\u{1b}[2J\u{9b}1;1H\u{7f}\u{202e}am\u{2028}\nerror: forged";
/// The form in which it must be shown.
const SHOWN: &str = "te\\u{1b}[2J\\u{9b}1;1H\\u{7f}\\u{202e}am\\u{2028}\\nerror: forged";

fn is_not_obeyed(what: &str, said: &str) {
    assert!(!said.contains(|c| manifests::is_no_text(c) && c != '\n' && c != '\t'), "{what} obeys: {said:?}");
    assert!(!said.contains("\nerror: forged"), "{what} has a forged line: {said}");
}

fn is_harmless(what: &str, said: &str) {
    is_not_obeyed(what, said);
    assert!(said.contains(SHOWN), "{what} does not show the name: {said}");
}

#[test]
fn names_of_files_are_told_and_not_obeyed() {
    let here = Workplace::new();
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: a, namespace: b}\nstringData: {c: d}\n";
    here.write(&format!("apps/{HOSTILE}.yaml"), secret);
    here.write(&format!("apps/{HOSTILE}.bad.yaml"), "apiVersion: v1\nkind: Secret\na: b: c\n");
    let output = here.run(&["validate", "apps"]);
    is_harmless("validate", &stdout_of(&output));
    let output = here.run(&["validate", "apps", "-o", "json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(!stdout_of(&output).contains(|c| manifests::is_no_text(c) && c != '\n'), "{:?}", stdout_of(&output));
    let files: Vec<_> =
        report["problems"].as_array().unwrap().iter().map(|problem| problem["file"].as_str().unwrap()).collect();
    assert!(files.contains(&format!("apps/{HOSTILE}.yaml").as_str()), "programs get the name itself: {files:?}");

    let output = here.seal(&["apps"]);
    assert_eq!(output.status.code(), Some(1), "one of them cannot be read");
    for line in stderr(&output).lines().filter(|line| line.contains("apps/")) {
        is_harmless("seal", line);
    }
    assert_eq!(stderr(&output).matches(SHOWN).count(), 2, "{}", stderr(&output));
    let output = here.run(&["seal", "--cert", "cert.pem", &format!("missing/{HOSTILE}.yaml")]);
    is_not_obeyed("an error", &stderr(&output));
    assert_eq!(stdout(&here.run(&["version"])).lines().count(), 1);
}

fn stdout_of(output: &std::process::Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}
