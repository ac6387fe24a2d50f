//! Strings as in Go: any bytes, mostly UTF-8, in memory that is wiped.

use std::{cmp::Ordering, fmt, ops::Deref, rc::Rc};

use zeroize::Zeroizing;

/// A string value. It is cheap to clone, and its memory is wiped when the last clone is dropped. It has no `Debug`, so
/// that it cannot be logged by mistake.
#[derive(Clone)]
pub(crate) struct Text(Rc<Zeroizing<Vec<u8>>>);

impl Text {
    pub(crate) fn new(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(Rc::new(bytes))
    }

    pub(crate) fn copied(bytes: &[u8]) -> Self {
        Self::new(Zeroizing::new(bytes.to_vec()))
    }
}

impl Deref for Text {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl std::borrow::Borrow<[u8]> for Text {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Text {}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

/// A text that is being written. Its length has an upper limit. When it outgrows its memory and moves to a larger piece, the old
/// piece is overwritten with zeros, because the text may be secret.
pub(crate) struct Buffer {
    bytes: Zeroizing<Vec<u8>>,
    limit: usize,
    full: bool,
}

impl Buffer {
    pub(crate) fn new(limit: usize) -> Self {
        Self { bytes: Zeroizing::new(Vec::new()), limit, full: false }
    }

    /// Appends `more`, unless the text would exceed the limit. If it would, then from now on nothing is appended, and
    /// [`is_full`](Self::is_full) returns true.
    pub(crate) fn push(&mut self, more: &[u8]) {
        let needed = self.bytes.len().saturating_add(more.len());
        if self.full || needed > self.limit {
            self.full = true;
            return;
        }
        if needed > self.bytes.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(needed.max(self.bytes.capacity() * 2).max(32)));
            larger.extend_from_slice(&self.bytes);
            self.bytes = larger;
        }
        self.bytes.extend_from_slice(more);
    }

    pub(crate) fn push_char(&mut self, char: char) {
        self.push(char.encode_utf8(&mut [0; 4]).as_bytes());
    }

    /// Appends `unit` this many times.
    pub(crate) fn repeat(&mut self, unit: &[u8], times: usize) {
        if unit.len().saturating_mul(times) > self.limit.saturating_sub(self.bytes.len()) {
            self.full = true;
            return;
        }
        for _ in 0..times {
            self.push(unit);
        }
    }

    /// Whether something was not appended, because the text would have been longer than the limit.
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The whole text; `None` if something was not appended.
    pub(crate) fn finish(self) -> Option<Zeroizing<Vec<u8>>> {
        (!self.full).then_some(self.bytes)
    }
}

impl fmt::Write for Buffer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

/// The character at the start of `bytes` and how many bytes it takes; `None` stands for one byte that is not UTF-8.
/// `bytes` must not be empty.
pub(crate) fn first_char(bytes: &[u8]) -> (Option<char>, usize) {
    let width = match bytes[0] {
        0..=0x7f => return (Some(char::from(bytes[0])), 1),
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf7 => 4,
        _ => return (None, 1),
    };
    match bytes.get(..width).and_then(|bytes| std::str::from_utf8(bytes).ok()) {
        Some(text) => (text.chars().next(), width),
        None => (None, 1),
    }
}

/// The characters of `bytes`; a byte that is not UTF-8 counts as U+FFFD, as in Go.
pub(crate) fn chars(bytes: &[u8]) -> impl Iterator<Item = char> + '_ {
    pieces(bytes).map(|(char, _)| char.unwrap_or(char::REPLACEMENT_CHARACTER))
}

/// The characters of `bytes`, each with the bytes that encode it; for a byte that is not UTF-8 there is no character.
pub(crate) fn pieces(bytes: &[u8]) -> impl Iterator<Item = (Option<char>, &[u8])> + '_ {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (char, width) = first_char(rest);
        let (piece, after) = rest.split_at(width);
        rest = after;
        Some((char, piece))
    })
}
