//! Untrusted templates: each of them is rendered or refused within a short time, and no error contains a value.
#![allow(clippy::unwrap_used)]

mod cases;

use gotemplate::{ErrorKind, Limits, Renderer, Salts};
use proptest::prelude::*;

const SECRET: &str = "s3cr3t-v4lue";

fn limits() -> Limits {
    Limits { steps: 20_000, output: 1 << 14, text: 1 << 15, memory: 1 << 19 }
}

fn render(template: &str) -> Result<Vec<u8>, gotemplate::Error> {
    let values: [(&str, &[u8]); 4] =
        [("a", SECRET.as_bytes()), ("b", b"\xff\x00"), ("n", b"7"), ("j", br#"{"x": [1, null, {"y": "z"}]}"#)];
    Renderer::new(values, Salts::new("", "", []), limits()).render("key", template).map(|bytes| bytes.to_vec())
}

fn look(template: &str) {
    match render(template) {
        Ok(output) => assert!(output.len() <= limits().output),
        Err(error) => {
            let text = error.to_string();
            assert!(!text.contains(SECRET) && text.len() < 1000, "{template}: {text}");
            assert!(error.line >= 1 && error.line <= template.lines().count().max(1), "{template}: {text}");
        }
    }
}

/// Any token that can be in an action.
fn word() -> impl Strategy<Value = String> {
    let functions: Vec<&'static str> = gotemplate::functions().collect();
    prop_oneof![
        6 => prop::sample::select(functions).prop_map(str::to_owned),
        4 => prop::sample::select(vec![".", ".a", ".b", ".j", ".missing", "$", "$x", "nil", "true", "(", ")", "|", "$x :="])
            .prop_map(str::to_owned),
        2 => prop::sample::select(vec!["if", "range", "with", "else", "end", "define \"t\"", "template \"t\"", "block \"t\""])
            .prop_map(str::to_owned),
        2 => any::<i64>().prop_map(|number| number.to_string()),
        2 => (-9_i64..9).prop_map(|number| number.to_string()),
        1 => any::<f64>().prop_map(|number| number.to_string()),
        2 => "[ -~]{0,12}".prop_map(|text| format!("{text:?}")),
        1 => Just("`%v|%[2]*.[1]*d|%#x`".to_owned()),
        2 => Just("(list 1 \"a\" nil .a)".to_owned()),
        2 => Just("(dict \"a\" 1 \"b\" (list))".to_owned()),
        1 => Just("(fromJson .j)".to_owned()),
    ]
}

fn template() -> impl Strategy<Value = String> {
    prop::collection::vec((prop::collection::vec(word(), 0..6), "[ \n]{0,2}"), 0..6).prop_map(|actions| {
        actions.iter().map(|(words, text)| format!("{{{{ {} }}}}{text}", words.join(" "))).collect()
    })
}

/// A call of a function, with arguments that often have the right types.
fn call() -> impl Strategy<Value = String> {
    let functions: Vec<&'static str> = gotemplate::functions().collect();
    let argument = prop_oneof![
        3 => Just(".a".to_owned()),
        1 => Just(".b".to_owned()),
        3 => prop::sample::select(vec![0_i64, 1, 2, 3, -1, 7, 100, 65_536, i64::MAX, i64::MIN]).prop_map(|number| number.to_string()),
        1 => prop::sample::select(vec!["0.5", "1e300", "-1e-300", "true", "nil", ".missing", "'a'"]).prop_map(str::to_owned),
        2 => prop::sample::select(vec!["(list)", "(list 1 2 2)", "(until 5)", "(splitList \"\" .a)", "(chunk 2 (until 5))"])
            .prop_map(str::to_owned),
        2 => prop::sample::select(vec!["(dict)", "(dict \"a\" (dict \"b\" 1))", "(fromJson .j)", "$"]).prop_map(str::to_owned),
        3 => prop::sample::select(vec!["", "a", "é b", "%5d%s", "[a-z]+", "(.)(x*)", "$1${2}", "a/../b", "1.5", "{\"a\":[]}"])
            .prop_map(|text| format!("{text:?}")),
    ];
    (prop::sample::select(functions), prop::collection::vec(argument, 0..4), any::<bool>()).prop_map(
        |(function, arguments, printed)| {
            let shown = if printed { " | printf \"%v %#v %q %d\" 1" } else { " | toJson" };
            format!("{{{{ {function} {} {shown} }}}}", arguments.join(" "))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_answered(text in "(\\{\\{|\\}\\}|-|[ -~]|\n|é){0,60}") {
        look(&text);
    }

    #[test]
    fn any_words_are_answered(text in template()) {
        look(&text);
    }

    #[test]
    fn any_call_is_answered(text in call()) {
        look(&text);
    }
}

#[test]
fn cut_cases_are_answered() {
    for template in cases::templates() {
        let places: Vec<usize> = template.char_indices().map(|(at, _)| at).collect();
        for at in places.iter().step_by(1 + places.len() / 40) {
            look(&template[..*at]);
            look(&template[*at..]);
        }
    }
}

/// Deep nesting must not overflow the default stack of a thread, even in a build without optimisation.
#[test]
fn nothing_nests_without_end() {
    let nested = |open: &str, close: &str, times: usize| format!("{}1{}", open.repeat(times), close.repeat(times));
    let body = format!(
        "{{{{ define \"t\" }}}}{}{{{{ end }}}}{{{{ template \"t\" . }}}}",
        nested("{{ if true }}{{ template \"t\" (", ") }}{{ end }}", 50)
    );
    for template in [
        format!("{{{{ {} }}}}", nested("(", ")", 60_000)),
        format!("{{{{ {} }}}}", nested("(", ")", 63)),
        nested("{{ if true }}", "{{ end }}", 60_000),
        nested("{{ if true }}", "{{ end }}", 63),
        format!("{}{{{{ end }}}}", "{{ if false }}{{ else ".repeat(3000)),
        format!("{{{{ if false }}}}{}{{{{ end }}}}", "{{ else if false }}".repeat(3000)),
        "{{ define \"t\" }}{{ if true }}{{ template \"t\" (print (print .)) }}{{ end }}{{ end }}{{ template \"t\" 1 }}"
            .into(),
        "{{ $l := list }}{{ range 9999 }}{{ $l = list $l }}{{ end }}{{ $l }}".into(),
        "{{ $d := dict }}{{ range 9999 }}{{ $d = dict \"d\" $d }}{{ end }}{{ $d }}".into(),
        "{{ $d := dict }}{{ range 9999 }}{{ $d = dict \"d\" $d }}{{ end }}{{ $e := deepCopy $d }}".into(),
        "{{ $d := dict }}{{ $_ := set $d \"d\" $d }}{{ $d | toJson }}".into(),
        "{{ $d := dict }}{{ $_ := set $d \"d\" (list $d $d) }}{{ deepEqual $d (deepCopy $d) }}".into(),
        "{{ $d := dict }}{{ $_ := set $d \"d\" (dict \"d\" $d) }}{{ merge $d $d (dict \"d\" $d) }}".into(),
        "{{ $l := list 1 }}{{ range 60 }}{{ $l = list $l $l }}{{ end }}{{ $l }}".into(),
        format!("{{{{ fromJson `{}` }}}}", nested("[", "]", 60_000)),
        format!("{{{{ mustRegexMatch `{}` .a }}}}", nested("(", ")", 1500)),
        body,
    ] {
        look(&template);
    }
}

#[test]
fn what_takes_too_much_is_refused_as_that() {
    for template in [
        "{{ range 999999999 }}{{ end }}",
        "{{ range until 999999999 }}{{ end }}",
        "{{ range untilStep 0 999999999 1 }}{{ end }}",
        "{{ seq 999999999 }}",
        "{{ repeat 999999999 .a }}",
        "{{ repeat 9223372036854775807 .a }}",
        "{{ indent 9223372036854775807 .a }}",
        "{{ replace \"\" (repeat 2000 .a) (repeat 2000 .a) }}",
        "{{ join (repeat 2000 .a) (until 2000) }}",
        "{{ printf \"%999999d\" 1 }}",
        "{{ range 9999 }}{{ $.a }}{{ end }}",
        "{{ $x := .a }}{{ range 99 }}{{ $x = print $x $x }}{{ end }}",
        "{{ range 99 }}{{ bcrypt $.a }}{{ end }}",
        "{{ range $i := 9999 }}{{ regexMatch (print \"a{\" $i \"}\") $.a }}{{ end }}",
        "{{ uniq (until 2000) }}",
        "{{ $x := repeat 2000 .a }}{{ range 9999 }}{{ $y := regexMatch \"x*y\" $x }}{{ end }}",
        "{{ mulf (float64 \"1e300\") 1e300 1e300 1e300 1e300 1e300 1e300 | printf \"%v\" | repeat 99999 }}",
    ] {
        let error = render(template).expect_err(template);
        assert_eq!(error.kind, ErrorKind::Limit, "{template}: {error}");
    }
}
