//! Objects as kubeseal prints them.

use std::io::{self, Write};

use anyhow::bail;
use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter, PrettyFormatter, Serializer};
use serde_json::{Map, Value};

use super::yaml;

/// `-o`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Format {
    Json,
    Yaml,
}

impl Format {
    /// # Errors
    /// kubeseal has no such format.
    pub(super) fn of(name: &str) -> anyhow::Result<Self> {
        match name.to_lowercase().as_str() {
            "" | "json" => Ok(Self::Json),
            "yaml" => Ok(Self::Yaml),
            _ => bail!("unsupported output format: {name}"),
        }
    }

    /// Appends an object: indented JSON and a newline, or a YAML document with `---` before it.
    pub(super) fn write(self, out: &mut String, body: &Map<String, Value>) -> anyhow::Result<()> {
        match self {
            Self::Json => {
                let writer = Appended(out);
                body.serialize(&mut Serializer::with_formatter(writer, GoFormatter(PrettyFormatter::new())))?;
                out.push('\n');
            }
            Self::Yaml => {
                out.push_str("---\n");
                yaml::write(out, body);
            }
        }
        Ok(())
    }
}

/// A writer that appends JSON text to a string. The string may be one that is wiped.
struct Appended<'a>(&'a mut String);

impl Write for Appended<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let text = std::str::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        self.0.push_str(text);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Indented JSON as Go writes it: with `<`, `>`, `&`, and the line ends U+2028 and U+2029 escaped.
struct GoFormatter<'i>(PrettyFormatter<'i>);

impl Formatter for GoFormatter<'_> {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let c = rest[at..].chars().next().unwrap_or_default();
            writer.write_all(&rest.as_bytes()[..at])?;
            write!(writer, "\\u{:04x}", u32::from(c))?;
            rest = &rest[at + c.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }

    fn write_char_escape<W: ?Sized + Write>(&mut self, writer: &mut W, escape: CharEscape) -> io::Result<()> {
        self.0.write_char_escape(writer, escape)
    }

    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn written(format: Format, value: &Value) -> String {
        let mut text = String::new();
        format.write(&mut text, value.as_object().unwrap()).unwrap();
        text
    }

    #[test]
    fn json_is_escaped_as_go_does() {
        let text = written(Format::Json, &json!({"a": "<b>&\u{2028}\"\n\t\u{1}\u{8}é", "c": {}, "d": []}));
        let expected =
            "{\n  \"a\": \"\\u003cb\\u003e\\u0026\\u2028\\\"\\n\\t\\u0001\\bé\",\n  \"c\": {},\n  \"d\": []\n}\n";
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["a"], "<b>&\u{2028}\"\n\t\u{1}\u{8}é");
    }

    #[test]
    fn yaml_documents_start_with_their_marker() {
        assert_eq!(written(Format::Yaml, &json!({"b": null, "a": "x"})), "---\na: x\nb: null\n");
    }

    #[test]
    fn formats_have_names_in_any_case() {
        assert_eq!(Format::of("YAML").unwrap(), Format::Yaml);
        assert_eq!(Format::of("").unwrap(), Format::Json);
        assert_eq!(Format::of("xml").unwrap_err().to_string(), "unsupported output format: xml");
    }
}
