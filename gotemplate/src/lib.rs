//! Go's `text/template` with the functions of sprig, as Sealed Secrets renders `spec.template.data`.
//!
//! # Flow
//! A [`Renderer`] has the unsealed values, and renders one template after the other with them. Results are the same as
//! those of Go 1.26 and sprig 3.3.0; `tests/cases.txt` has templates, and `tests/golden.json` has the results that a Go
//! program got for them.
//!
//! # Guarantees
//! - Bounded: every text, loop, nesting, and value counts against [`Limits`]; a template that would run for ever ends
//!   with an [`Error`].
//! - Repeatable: the same template over the same values gives the same bytes. Functions whose results differ from call
//!   to call (random values, the time of day) are not supported; password hashes take their salt from [`Salts`].
//! - Errors never hold a value.
//!
//! # Caveats
//! Memory with texts is wiped after use. Memory with numbers is not, and neither are the short-lived copies that regular
//! expressions, hash functions and number formatting make.

mod ast;
mod error;
mod exec;
mod format;
mod functions;
mod go_regex;
mod lex;
mod limits;
mod literal;
mod parse;
mod printf;
mod salts;
mod text;
mod unicode;
mod value;

use zeroize::Zeroizing;

pub use self::{
    error::{Error, ErrorKind},
    limits::Limits,
    salts::Salts,
};
use self::{
    limits::Budget,
    text::Text,
    value::{Memory, Value},
};

/// Renders the templates of one SealedSecret over its values.
pub struct Renderer {
    memory: Memory,
}

impl Renderer {
    /// `data` are the unsealed values by name, copied into memory that is wiped. All templates together may use at most
    /// what `limits` allow.
    pub fn new<'a>(data: impl IntoIterator<Item = (&'a str, &'a [u8])>, salts: Salts, limits: Limits) -> Self {
        let copied = |(name, value): (&str, &[u8])| (Text::copied(name.as_bytes()), Value::Text(Text::copied(value)));
        Self { memory: Memory::new(data.into_iter().map(copied).collect(), salts, Budget::new(limits)) }
    }

    /// Renders `text`, the template called `name`.
    ///
    /// # Errors
    /// The template would fail in Go, too; or it calls a function that is not supported, even if this call would not be
    /// reached; or it exceeds a limit.
    pub fn render(&mut self, name: &str, text: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
        let templates = parse::parse(name, text)?;
        self.memory.salts.begin(name);
        let rendered = exec::Exec::new(&templates, &mut self.memory).run(name, Memory::data());
        self.memory.clear();
        rendered
    }
}

/// Reads `text` without rendering it.
///
/// # Errors
/// The errors of [`Renderer::render`] that do not depend on values.
pub fn check(name: &str, text: &str) -> Result<(), Error> {
    parse::parse(name, text).map(drop)
}

/// The names of all functions that templates can call.
pub fn functions() -> impl Iterator<Item = &'static str> {
    functions::names()
}
