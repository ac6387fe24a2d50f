//! Checks that the results are those of Go and sprig, which are in `golden.json`. The behaviour test `templates` writes
//! this file with Go's own template engine.
#![allow(clippy::unwrap_used)]

mod cases;

use gotemplate::{ErrorKind, Limits, Renderer, Salts};

#[test]
fn every_case_is_answered_as_go_does() {
    let golden = cases::golden();
    let templates = cases::templates();
    assert_eq!(golden.len(), templates.len(), "golden.json is of other cases: see tests/behaviours/templates.rs");
    let data = cases::data();
    let mut wrong = Vec::new();
    for (template, golden) in templates.iter().zip(&golden) {
        assert_eq!(*template, golden.template, "golden.json is of other cases: see tests/behaviours/templates.rs");
        let data = data.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        let mut renderer = Renderer::new(data, Salts::new("", "", []), Limits::default());
        let rendered = renderer.render("key", template);
        let right = match (&rendered, &golden.output) {
            (Ok(rendered), Some(output)) => **rendered == output.0,
            (Err(error), None) => error.kind != ErrorKind::Limit,
            _ => false,
        };
        if !right {
            let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let ours = rendered.as_deref().map(|bytes| shown(bytes)).map_err(ToString::to_string);
            let gos = golden.output.as_ref().map(|output| shown(&output.0));
            wrong.push(format!("{template}\n  ours {ours:?}\n  go's {gos:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), templates.len(), wrong.join("\n"));
}
