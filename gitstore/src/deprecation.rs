//! Whether a chart says of itself that it is deprecated.

use granit_parser::{Event, Parser};

use crate::Snapshot;
use crate::snapshot::Recent;

/// The most bytes of a `Chart.yaml` that are looked at.
const BYTES: u64 = 256 << 10;
const DEPTH: usize = 32;

impl Snapshot {
    /// Whether the `Chart.yaml` at the root says that the chart is deprecated. `false` if there is none, or if it cannot be read: the
    /// render says what is wrong with it.
    pub fn has_deprecated_chart(&self) -> bool {
        let repository = self.repository();
        let Ok(Some((mode, id))) = self.entry(&repository, "Chart.yaml", &mut Recent::default()) else { return false };
        let is_small = || repository.find_header(id).is_ok_and(|header| header.size() <= BYTES);
        mode.is_blob() && is_small() && self.read(&repository, id, "Chart.yaml").is_ok_and(|bytes| says_so(&bytes))
    }
}

fn says_so(chart: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(chart) else { return false };
    let mut options = granit_parser::options! { flow_nesting_limit: DEPTH, block_nesting_limit: DEPTH };
    options.set_emit_comments(false);
    let (mut depth, mut key) = (0, None::<String>);
    for event in Parser::new_from_str_with_options(text, options) {
        match event {
            Ok((Event::MappingStart(..) | Event::SequenceStart(..), _)) => depth += 1,
            Ok((Event::MappingEnd | Event::SequenceEnd, _)) => {
                depth -= 1;
                if depth == 1 {
                    key = None;
                }
            }
            Ok((Event::Scalar(text, ..), _)) if depth == 1 => match key.take() {
                Some(key) if key == "deprecated" => return text.eq_ignore_ascii_case("true"),
                Some(_) => {}
                None => key = Some(text.into_owned()),
            },
            Ok(_) => {}
            Err(_) => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_says_that_it_is_deprecated() {
        for (text, expected) in [
            ("name: a\ndeprecated: true\n", true),
            ("{\"deprecated\": true}", true),
            ("a: {b: [c]}\nd: [e]\ndeprecated: True\n", true),
            ("name: deprecated\nversion: true\n", false),
            ("deprecated: false\n", false),
            ("annotations: {deprecated: true}\n", false),
            ("dependencies:\n- deprecated: true\n", false),
            ("- deprecated: true\n", false),
            ("deprecated: [", false),
            ("", false),
        ] {
            assert_eq!(says_so(text.as_bytes()), expected, "{text}");
        }
        assert!(!says_so(b"deprecated: true\n\xff"));
    }
}
