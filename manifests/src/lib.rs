//! Parses bytes as Kubernetes objects: YAML and JSON with several documents, within limits, and with the file and line
//! of each object.
//!
//! The controller reads what tenants wrote, so every text is taken for hostile: [`parse`] is bounded in size, depth,
//! nodes, documents and alias expansion ([`Limits`]), and never panics. It reads a document as `kubectl` does, so that
//! the API server sees the same types whether gitseal or `kubectl` applied it; the few deliberate differences are
//! listed at [`parse`].
//!
//! A document can hold plaintext secrets. [`ParseError`] therefore names places (file, line, key path) and never quotes
//! values, and [`Manifest`] has no `Debug` of its body.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod error;
mod filled_in;
mod id;
mod ignored;
mod limits;
mod manifest;
mod scalar;
mod split;
mod text;
mod tree;
mod yaml;

pub use error::{ErrorKind, Location, ParseError};
pub use filled_in::{SERVER_METADATA, leave_to_control_plane};
pub use id::ObjectId;
pub use ignored::{Fate, IGNORE_FILE, IgnoreError, IgnoreRules, is_of_another_program};
pub use limits::Limits;
pub use manifest::{Content, Manifest, Parsed, is_manifest_file, parse, parse_document, parse_mapping, parse_measured};
pub use scalar::{is_text, plain_scalar, scalar_text};
pub use split::{Document, Documents, split};
pub use text::{in_json, in_lines, in_one_line, is_no_text, json_for_yaml, printable};
pub use tree::{Tree, TreeEntry, TreeFile, is_kustomization};
