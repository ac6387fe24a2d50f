use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use inquire::{Password, PasswordDisplayMode};
use sealing::SecretBytes;
use serde_json::Map;
use zeroize::Zeroizing;

use super::inputs::read_file;
use super::{read_stdin, stdin_is_terminal};
use crate::edit::{PlainSecret, check_key, check_name};
use crate::output::Hint;

/// A new Secret from flags.
#[derive(clap::Args)]
#[command(next_help_heading = "To make a new SealedSecret")]
pub(super) struct NewSecret {
    /// Name of the new Secret
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Type of the new Secret
    #[arg(long = "type", value_name = "TYPE", requires = "name")]
    secret_type: Option<String>,

    /// Take a value from a file; its key is KEY or the file's name. `KEY=-` is standard input, byte for byte
    #[arg(long, value_name = "[KEY=]FILE", requires = "name")]
    from_file: Vec<String>,

    /// Ask in the terminal for the value of this key. Without a terminal, read the value from standard input, without
    /// its last line end
    #[arg(long, value_name = "KEY", requires = "name")]
    from_literal: Vec<String>,
}

impl NewSecret {
    pub(super) fn is_asked_for(&self) -> bool {
        self.name.is_some()
    }

    /// Reads the values.
    pub(super) fn secret(&self, namespace: Option<String>) -> anyhow::Result<PlainSecret> {
        let name = self.name.clone().unwrap_or_default();
        check_name(&name)?;
        self.check_stdin()?;
        let mut data = BTreeMap::new();
        let mut add = |key: &str, value: SecretBytes| match data.insert(key.to_owned(), value) {
            None => Ok(()),
            Some(_) => {
                Err(Hint::error(format!("the key {key} is given twice"), "give each value a key of its own: KEY=FILE"))
            }
        };
        for argument in &self.from_file {
            let (key, file) = key_and_file(argument)?;
            check_key("--from-file", &key)?;
            let bytes = if is_stdin(file) { read_stdin()? } else { read_file(Path::new(file))? };
            add(&key, bytes.into())?;
        }
        for key in &self.from_literal {
            check_literal(key)?;
            add(key, ask(&name, key)?)?;
        }
        Ok(PlainSecret {
            name,
            namespace,
            metadata: Map::new(),
            secret_type: self.secret_type.clone(),
            immutable: None,
            data,
            origin: None,
        })
    }

    /// Standard input can be used for one value only.
    fn check_stdin(&self) -> anyhow::Result<()> {
        let files = self.from_file.iter().filter(|argument| is_stdin(argument.rsplit('=').next().unwrap_or_default()));
        let literals = if stdin_is_terminal() { 0 } else { self.from_literal.len() };
        if files.count() + literals > 1 {
            return Err(Hint::error(
                "standard input can give only one value",
                "run the command in a terminal to be asked for each value, or use --from-file KEY=FILE",
            ));
        }
        Ok(())
    }
}

fn is_stdin(file: &str) -> bool {
    file == "-"
}

fn key_and_file(argument: &str) -> anyhow::Result<(String, &str)> {
    if let Some((key, file)) = argument.split_once('=') {
        return Ok((key.to_owned(), file));
    }
    let key = Path::new(argument).file_name().map(|name| name.to_string_lossy().into_owned());
    match key {
        Some(key) if !is_stdin(argument) => Ok((key, argument)),
        _ => Err(Hint::error(
            format!("--from-file {argument}: the value has no key, because this is not the name of a file"),
            "give the key: --from-file KEY=FILE, or --from-file KEY=- for standard input",
        )),
    }
}

/// Refuses a value on the command line, because it would be in the shell's history and in the list of processes.
fn check_literal(key: &str) -> anyhow::Result<()> {
    if let Some((key, _)) = key.split_once('=') {
        let key = if check_key("", key).is_ok() { key } else { "KEY" };
        return Err(Hint::error(
            "--from-literal takes a key only: a value here would stay in the shell's history and in the list of processes",
            format!("give --from-literal {key} and type the value when asked, or pipe it in"),
        ));
    }
    check_key("--from-literal", key)
}

fn ask(name: &str, key: &str) -> anyhow::Result<SecretBytes> {
    if stdin_is_terminal() {
        let value = Password::new(&format!("Value of {key} in {name}:"))
            .with_display_mode(PasswordDisplayMode::Masked)
            .with_display_toggle_enabled()
            .without_confirmation()
            .prompt()
            .with_context(|| format!("no value for {key}"))?;
        return Ok(SecretBytes::new(value.into_bytes()));
    }
    let mut value = read_stdin()?;
    for end in [b'\n', b'\r'] {
        if value.last() == Some(&end) {
            value.pop();
        }
    }
    if value.is_empty() {
        return Err(Hint::error(
            format!("standard input holds no value for {key}"),
            "pipe the value in, or run the command in a terminal",
        ));
    }
    Ok(Zeroizing::new(std::mem::take(&mut *value)).into())
}
