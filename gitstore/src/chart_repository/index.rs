//! Reads `index.yaml` as a stream. Whoever made the file may be hostile, so memory is limited: only the versions of one
//! chart are kept, and some names of charts for an error message.

use std::cell::{Cell, RefCell};
use std::io::{self, BufRead as _, BufReader, Read};

use granit_parser::{Event, Parser};
use worker::Cancel;

use crate::transport::presentable;
use remotes::is_digest;

/// The most bytes of an index. Large real ones have 20 MB.
pub(super) const BYTES: u64 = 32 << 20;
/// The most levels of lists and mappings.
const DEPTH: usize = 32;
/// The most values. Each chart version has about 30.
const EVENTS: usize = 8_000_000;
/// The most characters from one value to the next. The parser has a whole value in memory.
const BETWEEN: usize = 1 << 20;
/// The most bytes that are kept of the versions of one chart.
const KEPT: usize = 4 << 20;
/// How many URLs of an archive are kept.
const URLS: usize = 5;
/// How many names of charts are kept for a message.
const CHARTS: usize = 100;

/// What is kept of an index.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// The versions of the chart, in the order of the index.
    pub(super) versions: Vec<Version>,
    /// The names of the first charts in the index, for an error message.
    pub(super) charts: Vec<String>,
    /// It came from elsewhere than the Repository's URL.
    pub(super) is_of_elsewhere: bool,
}

/// A version of the chart.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Version {
    pub(super) name: String,
    /// SHA-256 of the archive, in hex digits.
    pub(super) digest: Option<String>,
    pub(super) urls: Vec<String>,
}

/// Why an index is not used.
#[derive(Debug)]
pub(super) enum Flaw {
    /// The text is no index.
    Unreadable(String),
    /// The index exceeds a limit.
    TooLarge(String),
    /// The index was not received.
    Broken(io::Error),
    Cancelled,
}

/// Reads the versions of `chart`.
pub(super) fn read(input: impl Read, chart: &str, cancel: &Cancel) -> Result<Index, Flaw> {
    let (failed, left) = (RefCell::new(None), Cell::new(BETWEEN));
    let mut options = granit_parser::options! {
        flow_nesting_limit: DEPTH, block_nesting_limit: DEPTH, disallow_directives: true
    };
    options.set_emit_comments(false);
    let mut reader = Reader::new(chart);
    let characters = Characters { input: BufReader::new(input), failed: &failed, left: &left };
    let mut has_entries = false;
    let mut problem = None;
    for (count, event) in Parser::new_from_iter_with_options(characters, options).enumerate() {
        if count % 1024 == 0 && cancel.is_cancelled() {
            return Err(Flaw::Cancelled);
        }
        if count > EVENTS {
            return Err(Flaw::TooLarge(format!("its index.yaml has more than {EVENTS} values")));
        }
        left.set(BETWEEN);
        let done = event
            .map_err(|error| {
                let line = error.marker().line();
                Flaw::Unreadable(format!(
                    "line {line} of its index.yaml cannot be read as YAML, or is nested too deeply"
                ))
            })
            .and_then(|(event, span)| reader.event(event, span.start.line()));
        match done {
            Ok(()) => has_entries |= reader.is_at_entries(),
            Err(flaw) => {
                problem = Some(flaw);
                break;
            }
        }
    }
    // An error of reading is checked first, because a text that such an error cuts off is often wrong YAML, too.
    match failed.into_inner() {
        Some(Stop::NotText) => return Err(Flaw::Unreadable("its index.yaml is not UTF-8".to_owned())),
        Some(Stop::TooLong) => {
            let what = format!("its index.yaml has a value or a comment of more than {} MiB", BETWEEN >> 20);
            return Err(Flaw::TooLarge(what));
        }
        Some(Stop::Broken(error)) => return Err(Flaw::Broken(error)),
        None => {}
    }
    match problem {
        Some(flaw) => Err(flaw),
        None if !has_entries => Err(Flaw::Unreadable("its index.yaml has no mapping `entries`".to_owned())),
        None => Ok(reader.index),
    }
}

/// A list or mapping that is being read.
enum Level {
    List,
    /// With the key whose value is next.
    Mapping(Option<String>),
}

struct Reader<'c> {
    chart: &'c str,
    index: Index,
    levels: Vec<Level>,
    now: Version,
    kept: usize,
    has_begun: bool,
    /// What was there already, and must not be there again: in the index, and in the version that is being read.
    of_index: Vec<&'static str>,
    of_version: Vec<&'static str>,
}

impl<'c> Reader<'c> {
    fn new(chart: &'c str) -> Self {
        let (index, levels, now) = (Index::default(), Vec::new(), Version::default());
        let (of_index, of_version) = (Vec::new(), Vec::new());
        Self { chart, index, levels, now, kept: 0, has_begun: false, of_index, of_version }
    }

    fn is_at_entries(&self) -> bool {
        matches!(&self.levels[..], [Level::Mapping(Some(top)), Level::Mapping(_)] if top == "entries")
    }

    fn event(&mut self, event: Event<'_>, line: usize) -> Result<(), Flaw> {
        let unreadable = |what: &str| Flaw::Unreadable(format!("line {line} of its index.yaml {what}"));
        match event {
            Event::Scalar(_, _, anchor, _) | Event::MappingStart(_, anchor, _) | Event::SequenceStart(_, anchor, _)
                if anchor != 0 =>
            {
                Err(unreadable("has a YAML anchor, which is refused in an index"))
            }
            Event::Alias(_) => Err(unreadable("has a YAML alias, which is refused in an index")),
            Event::Scalar(text, ..) => self.scalar(&text, line),
            Event::MappingStart(..) => self.open(Level::Mapping(None), line),
            Event::SequenceStart(..) => self.open(Level::List, line),
            Event::MappingEnd | Event::SequenceEnd => {
                self.levels.pop();
                self.end_of_value();
                if self.is_version(&self.levels) { self.end_of_version() } else { Ok(()) }
            }
            Event::DocumentStart(..) if std::mem::replace(&mut self.has_begun, true) => {
                Err(unreadable("starts a second document"))
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, level: Level, line: usize) -> Result<(), Flaw> {
        let expected = match (&self.levels[..], &level) {
            ([], Level::List) => Some("is no mapping"),
            ([Level::Mapping(Some(top))], Level::List) if top == "entries" => Some("has no mapping in `entries`"),
            ([Level::Mapping(Some(top)), Level::Mapping(Some(chart))], Level::Mapping(_))
                if top == "entries" && chart == self.chart =>
            {
                Some("has no list of versions of the chart")
            }
            ([.., Level::Mapping(None)], _) => Some("has a key that is not a string"),
            _ => None,
        };
        if let Some(what) = expected {
            return Err(Flaw::Unreadable(format!("line {line} of its index.yaml {what}")));
        }
        self.levels.push(level);
        Ok(())
    }

    fn scalar(&mut self, text: &str, line: usize) -> Result<(), Flaw> {
        let is_at_entries = self.is_at_entries();
        match self.levels.last_mut() {
            None => return Err(Flaw::Unreadable("its index.yaml is no mapping".to_owned())),
            Some(Level::Mapping(key @ None)) => {
                if text.len() > 1024 {
                    return Err(Flaw::TooLarge(format!(
                        "line {line} of its index.yaml has a key of more than 1024 bytes"
                    )));
                }
                *key = Some(text.to_owned());
                if is_at_entries && self.index.charts.len() < CHARTS {
                    self.index.charts.push(presentable(text));
                }
                return self.once(text, line);
            }
            Some(_) => {}
        }
        self.field(text)?;
        self.end_of_value();
        Ok(())
    }

    /// Refuses a key that is there twice, if it counts. Programs do not agree on which of the two values they use.
    fn once(&mut self, key: &str, line: usize) -> Result<(), Flaw> {
        const FIELDS: [&str; 3] = ["version", "digest", "urls"];
        let (what, before) = match &self.levels[..] {
            [_] if key == "entries" => ("entries", &mut self.of_index),
            [Level::Mapping(Some(top)), _] if top == "entries" && key == self.chart => {
                ("the chart", &mut self.of_index)
            }
            [above @ .., _] if self.is_version(above) => match FIELDS.into_iter().find(|field| *field == key) {
                Some(field) => (field, &mut self.of_version),
                None => return Ok(()),
            },
            _ => return Ok(()),
        };
        if before.contains(&what) {
            return Err(Flaw::Unreadable(format!("line {line} of its index.yaml has {what} a second time")));
        }
        before.push(what);
        Ok(())
    }

    /// Handles a value in the description of a version.
    fn field(&mut self, text: &str) -> Result<(), Flaw> {
        let [above @ .., last] = &self.levels[..] else { return Ok(()) };
        let (field, is_listed) = match (above, last) {
            (_, Level::Mapping(Some(field))) if self.is_version(above) => (field.as_str(), false),
            ([of_version @ .., Level::Mapping(Some(field))], Level::List) if self.is_version(of_version) => {
                (field.as_str(), true)
            }
            _ => return Ok(()),
        };
        match (field, is_listed) {
            ("version", false) => text.clone_into(&mut self.now.name),
            ("digest", false) => {
                let digest = text.strip_prefix("sha256:").unwrap_or(text).to_ascii_lowercase();
                self.now.digest = Some(digest).filter(|digest| is_digest(digest));
            }
            ("urls", true) if self.now.urls.len() < URLS => self.now.urls.push(text.to_owned()),
            _ => return Ok(()),
        }
        self.keep(text.len() + size_of::<String>() * 2)
    }

    /// Counts what is kept in memory.
    fn keep(&mut self, bytes: usize) -> Result<(), Flaw> {
        self.kept += bytes;
        if self.kept > KEPT {
            let what = format!("the versions of the chart in its index.yaml take more than {} MiB", KEPT >> 20);
            return Err(Flaw::TooLarge(what));
        }
        Ok(())
    }

    /// Whether these are the levels above the mapping of a version.
    fn is_version(&self, levels: &[Level]) -> bool {
        matches!(levels, [Level::Mapping(Some(top)), Level::Mapping(Some(chart)), Level::List]
            if top == "entries" && chart == self.chart)
    }

    fn end_of_version(&mut self) -> Result<(), Flaw> {
        let version = std::mem::take(&mut self.now);
        self.of_version.clear();
        // As in Helm, an entry that is no version is left out.
        if !version.name.is_empty() && version.name == presentable(&version.name) {
            self.index.versions.push(version);
            // A list that grows has up to twice as much.
            self.keep(size_of::<Version>() * 2)?;
        }
        Ok(())
    }

    fn end_of_value(&mut self) {
        if let Some(Level::Mapping(key)) = self.levels.last_mut() {
            *key = None;
        }
    }
}

/// Why no more characters come.
enum Stop {
    NotText,
    TooLong,
    Broken(io::Error),
}

/// The characters of a stream. They end when reading fails.
struct Characters<'f, R> {
    input: BufReader<R>,
    failed: &'f RefCell<Option<Stop>>,
    /// How many characters there may be until the next value.
    left: &'f Cell<usize>,
}

impl<R: Read> Characters<'_, R> {
    fn byte(&mut self) -> Result<Option<u8>, Stop> {
        let byte = self.input.fill_buf().map_err(Stop::Broken)?.first().copied();
        self.input.consume(usize::from(byte.is_some()));
        Ok(byte)
    }

    fn character(&mut self) -> Result<Option<char>, Stop> {
        self.left.set(self.left.get().checked_sub(1).ok_or(Stop::TooLong)?);
        let Some(first) = self.byte()? else { return Ok(None) };
        let length = match first {
            0..0x80 => return Ok(Some(first.into())),
            0x80..0xe0 => 2,
            0xe0..0xf0 => 3,
            _ => 4,
        };
        let mut bytes = [first, 0, 0, 0];
        for byte in &mut bytes[1..length] {
            *byte = self.byte()?.unwrap_or_default();
        }
        let text = std::str::from_utf8(&bytes[..length]).map_err(|_| Stop::NotText)?;
        Ok(text.chars().next())
    }
}

impl<R: Read> Iterator for Characters<'_, R> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        if self.failed.borrow().is_some() {
            return None;
        }
        self.character().unwrap_or_else(|stop| {
            *self.failed.borrow_mut() = Some(stop);
            None
        })
    }
}
