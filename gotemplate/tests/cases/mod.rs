//! Reads the cases from their files.
#![allow(unreachable_pub, dead_code, reason = "not every test uses all of it")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer};

/// This is public because the behaviour tests, in another crate, use it, too.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../gotemplate/tests").join(name)
}

fn file(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap()
}

/// The templates, in order.
pub fn templates() -> Vec<String> {
    let text = file("cases.txt");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with("# "));
    lines.map(|line| line.replace('␤', "\n").replace('␉', "\t")).collect()
}

/// The data with which the templates are rendered.
pub fn data() -> BTreeMap<String, Vec<u8>> {
    let encoded: BTreeMap<String, Bytes> = serde_json::from_str(&file("data.json")).unwrap();
    encoded.into_iter().map(|(name, value)| (name, value.0)).collect()
}

/// The result of a template in Go.
#[derive(Deserialize)]
pub struct Golden {
    pub template: String,
    /// The output. `None` means an error.
    pub output: Option<Bytes>,
}

pub fn golden() -> Vec<Golden> {
    serde_json::from_str(&file("golden.json")).unwrap()
}

/// Bytes: in JSON a text, or `{"base64": …}` if they are not text.
pub struct Bytes(pub Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Text(String),
            Encoded { base64: String },
        }
        Ok(Self(match Form::deserialize(deserializer)? {
            Form::Text(text) => text.into_bytes(),
            Form::Encoded { base64 } => STANDARD.decode(base64).unwrap(),
        }))
    }
}
