use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;

/// The YAML style of one value.
#[derive(Clone, Debug)]
enum Style {
    Plain,
    Single,
    Double,
    /// A literal block: its header, and the width of its lines.
    Literal(&'static str, usize),
    Folded(&'static str),
}

/// The form of a file, without its values.
#[derive(Clone, Debug)]
struct Layout {
    styles: Vec<Style>,
    indent: usize,
    comments: bool,
    frame: Frame,
    crlf: bool,
    bom: bool,
    ends_with_newline: bool,
}

#[derive(Clone, Copy, Debug)]
enum Frame {
    Document,
    Item,
    Flow,
    Json,
}

impl Layout {
    /// The file with these values.
    fn write(&self, values: &[String]) -> String {
        let mut text = match self.frame {
            Frame::Document => self.block(values, ""),
            Frame::Item => format!("apiVersion: v1\nkind: List\nitems:\n# items\n- {}", &self.block(values, "  ")[2..]),
            Frame::Flow | Frame::Json => self.flow(values),
        };
        if !self.ends_with_newline {
            text.truncate(text.trim_end().len());
        }
        if self.comments && !matches!(self.frame, Frame::Json) {
            text = format!("# Ag, before\na: 1\n---\n{text}");
        }
        if self.crlf {
            text = text.replace('\n', "\r\n");
        }
        if self.bom { format!("\u{feff}{text}") } else { text }
    }

    fn block(&self, values: &[String], margin: &str) -> String {
        let step = " ".repeat(self.indent);
        let mut text = format!(
            "{margin}apiVersion: bitnami.com/v1alpha1\n{margin}kind:   SealedSecret\n{margin}metadata: {{name: db}}\n{margin}spec:\n{margin}{step}encryptedData:\n"
        );
        for (index, (style, value)) in self.styles.iter().zip(values).enumerate() {
            if self.comments {
                text += &format!("{margin}{step}{step}# Ag, value {index}\n");
            }
            let key = format!("{margin}{step}{step}k{index}:  ");
            let deeper = format!("{margin}{step}{step}{step}");
            let behind = if self.comments { "  # 'behind'" } else { "" };
            text += &match style {
                Style::Plain => format!("{key}{value}{behind}\n"),
                Style::Single => format!("{key}'{value}'{behind}\n"),
                Style::Double => format!("{key}\"{value}\"{behind}\n"),
                Style::Literal(header, width) => {
                    let lines = value.as_bytes().chunks(*width).map(|line| str::from_utf8(line).unwrap());
                    let lines: String = lines.map(|line| format!("{deeper}{line}\n")).collect();
                    format!("{key}|{header}{behind}\n{lines}")
                }
                Style::Folded(header) => format!("{key}>{header}{behind}\n{deeper}{value}\n\n"),
            };
        }
        text + &format!("{margin}{step}template: {{type: Opaque}}\n")
    }

    fn flow(&self, values: &[String]) -> String {
        let is_json = matches!(self.frame, Frame::Json);
        let entries = self.styles.iter().zip(values).enumerate().map(|(index, (style, value))| match style {
            _ if is_json => format!("\n\t\t\"k{index}\" : \"{value}\""),
            Style::Plain => format!(" k{index}: {value}"),
            Style::Single => format!(" k{index}: '{value}'"),
            _ => format!("\n  \"k{index}\": \"{value}\""),
        });
        let entries = entries.collect::<Vec<_>>().join(",");
        format!(
            "{{\"apiVersion\": \"bitnami.com/v1alpha1\",\n \"kind\": \"SealedSecret\", \"metadata\": {{\"name\": \"db\"}},   \"spec\":\n  {{ \"encryptedData\": {{{entries}}}}} }}\n"
        )
    }
}

fn layout() -> impl Strategy<Value = Layout> {
    let style = prop_oneof![
        3 => Just(Style::Plain),
        1 => Just(Style::Single),
        1 => Just(Style::Double),
        1 => (select(vec!["", "-", "+"]), 20..90_usize).prop_map(|(header, width)| Style::Literal(header, width)),
        1 => select(vec!["", "-", "+"]).prop_map(Style::Folded),
    ];
    let frame = select(vec![Frame::Document, Frame::Document, Frame::Item, Frame::Flow, Frame::Json]);
    (vec(style, 1..5), 1..5_usize, frame, any::<[bool; 4]>()).prop_map(|(styles, indent, frame, flags)| {
        let [comments, crlf, bom, ends_with_newline] = flags;
        Layout { styles, indent, comments, frame, crlf, bom, ends_with_newline }
    })
}

/// Texts with the alphabet and typical lengths of sealed values.
fn values() -> impl Strategy<Value = Vec<String>> {
    vec("A[A-Za-z0-9+/]{94,300}={0,2}", 8)
}

fn joined(text: &str) -> String {
    text.replace(['\r', '\n'], "")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn replacing_values_is_writing_the_file_with_others(
        layout in layout(), values in values(), chosen in vec(any::<bool>(), 4),
    ) {
        let count = layout.styles.len();
        let (old, new) = values.split_at(4);
        let text = layout.write(&old[..count]);
        let read = SealedText::read("a.yaml", &text);
        prop_assert_eq!(read.sealed.len(), 1, "{}", text);
        let object = &read.sealed[0];
        prop_assert_eq!(object.values.len(), count);
        let mut meant = old[..count].to_vec();
        let mut replacements = Vec::new();
        for index in 0..count {
            let value = &object.values[index];
            prop_assert_eq!(joined(&value.value), joined(&old[index]));
            let line = text.lines().nth(value.line as usize - 1).unwrap();
            prop_assert!(line.contains(&format!("k{index}")), "{}: {}", value.line, text);
            if chosen[index] {
                meant[index].clone_from(&new[index]);
                replacements.push(Replacement { object: 0, value: index, text: new[index].clone() });
            }
        }
        let (after, refused) = read.replace(&replacements);
        prop_assert_eq!(refused, Vec::<usize>::new(), "{}", text);
        prop_assert_eq!(after, layout.write(&meant), "{}", text);
    }

    #[test]
    fn whatever_a_file_is_only_what_was_chosen_changes(
        layout in layout(), values in values(),
        damage in vec((any::<Index>(), select(vec![" ", "\n", "#", ":", "- ", "'", "\"", "|", ">", "{", "}", "&a ", "*a", "<<: ", "\t", "---\n", "!!str "])), 0..4),
    ) {
        let (old, new) = values.split_at(4);
        let mut text = layout.write(&old[..layout.styles.len()]);
        for (at, piece) in damage {
            let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            text.insert_str(places[at.index(places.len())], piece);
        }
        let read = SealedText::read("a.yaml", &text);
        let replacements: Vec<Replacement> = read
            .sealed
            .iter()
            .enumerate()
            .flat_map(|(object, sealed)| (0..sealed.values.len()).map(move |value| (object, value)))
            .map(|(object, value)| Replacement { object, value, text: new[value % 4].clone() })
            .collect();
        let (after, refused) = read.replace(&replacements);
        let again = SealedText::read("a.yaml", &after);
        prop_assert_eq!(again.sealed.len(), read.sealed.len(), "{}\n->\n{}", text, after);
        for (index, Replacement { object, value, text: new }) in replacements.iter().enumerate() {
            let (before, after) = (&read.sealed[*object].values[*value], &again.sealed[*object].values[*value]);
            prop_assert_eq!(&before.key, &after.key);
            let expected = if refused.contains(&index) { &before.value } else { new };
            prop_assert_eq!(joined(&after.value), joined(expected), "{}", text);
        }
        if refused.len() == replacements.len() {
            prop_assert_eq!(&text, &after);
        }
    }
}
