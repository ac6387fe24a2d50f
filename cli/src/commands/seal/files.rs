//! Seals files. Many files are read at the same time. Then this module goes through the files one after another, and
//! decides what is done with each. After that, many files are sealed and written at the same time.

use std::path::Path;
use std::sync::Arc;

use manifests::printable;
use sealing::{Certificate, Scope};
use zeroize::Zeroizing;

use super::inputs::Input;
use super::project::Certificates;
use super::{Outcome, SealArgs, Settings};
use crate::edit::{self, Sealed, Text};
use crate::output::{self, Hint};
use crate::parallel;

/// How many files are in memory at the same time.
const AT_ONCE: usize = 256;
/// How many files are written at the same time. A write needs little processor time, but waits until the file is on the
/// disk.
const WRITTEN_AT_ONCE: usize = 16;

/// The state of a file.
struct File<'t> {
    input: &'t Input,
    step: Step<'t>,
    /// Objects of the file that are or may be Secrets and could not be sealed.
    failed: Vec<String>,
    sealed_before: usize,
}

enum Step<'t> {
    /// The file is not sealed, because of a mistake.
    Failed,
    /// The file has nothing to seal.
    AsItIs(&'t str),
    ToSeal(Text<'t>, Arc<Certificate>, Option<Scope>),
    Sealed(String, Vec<Sealed>),
}

impl File<'_> {
    /// One bad file of a folder does not keep the others from being sealed. For a file that the user named, the error
    /// is returned.
    fn fail(&mut self, error: anyhow::Error) -> anyhow::Result<()> {
        if !self.input.was_found {
            return Err(error);
        }
        self.failed.push(format!("{error:#}").replace('\n', "; "));
        self.step = Step::Failed;
        Ok(())
    }
}

/// Seals files. With `in_place`, the files are written; otherwise their texts are returned. Also returns what was done.
///
/// # Errors
/// A file that was named has a mistake, or the certificate for a file cannot be fetched. The error is about the first
/// such file. The files before this file are sealed; those after it are not.
pub(super) async fn seal(
    inputs: &[Input],
    args: &SealArgs,
    settings: &Settings,
    certificates: &mut Certificates<'_>,
) -> anyhow::Result<(Vec<String>, Outcome)> {
    let (mut texts, mut outcome) = (Vec::new(), Outcome::default());
    for inputs in inputs.chunks(AT_ONCE) {
        let names: Vec<_> = inputs.iter().map(Input::name).collect();
        let (sources, errors) = read(inputs);
        let read = names.iter().zip(&sources).collect();
        let read = parallel::map(parallel::processors(), read, |(name, source)| Text::read(name, source));
        let (mut files, mut stop) = (Vec::new(), Ok(()));
        for (((input, source), text), error) in inputs.iter().zip(&sources).zip(read).zip(errors) {
            let target = input.path().or(args.output_file.as_deref());
            let mut file = File { input, step: Step::AsItIs(source), failed: Vec::new(), sealed_before: 0 };
            stop = match error {
                Some(error) => file.fail(error),
                None => file.look_at(text, target, certificates).await,
            };
            if stop.is_err() {
                break;
            }
            files.push(file);
        }
        let mut files = parallel::map(parallel::processors(), files, |file| file.seal(settings));
        if let Some(first) = files.iter().position(Result::is_err) {
            stop = files.drain(first..).next().map_or(Ok(()), |file| file.map(drop));
        }
        let files = files.into_iter().flatten().collect();
        for file in parallel::map(WRITTEN_AT_ONCE, files, |file: File<'_>| file.write(args.in_place)) {
            texts.extend(file?.finish(args.in_place, &mut outcome));
        }
        stop?;
    }
    Ok((texts, outcome))
}

/// The texts of files. If one cannot be read, its text is empty, and the error is returned.
fn read(inputs: &[Input]) -> (Vec<Zeroizing<String>>, Vec<Option<anyhow::Error>>) {
    let read = parallel::map(parallel::processors(), inputs.iter().collect(), Input::read);
    let apart = |read| match read {
        Ok(text) => (text, None),
        Err(error) => (Zeroizing::default(), Some(error)),
    };
    read.into_iter().map(apart).unzip()
}

impl<'t> File<'t> {
    /// Decides what is done with the file, and fetches the certificate if there is something to seal. `target` is the
    /// path for which `.gitseal.yaml` gives the rules; `None` means standard input.
    async fn look_at(
        &mut self,
        text: Text<'t>,
        target: Option<&Path>,
        certificates: &mut Certificates<'_>,
    ) -> anyhow::Result<()> {
        for manifest in &text.foreign {
            if let Some(field) = edit::left_plain_by_sops(manifest) {
                return self.fail(Hint::error(
                    format!("{}: {}: SOPS did not encrypt {}", manifest.origin, manifest.id, printable(&field)),
                    "decrypt the file (`sops -d`), then seal it; values that were pushed in plaintext have to be \
                    replaced",
                ));
            }
            output::warn(format_args!(
                "{}: {} is encrypted with SOPS and was left alone",
                manifest.origin, manifest.id
            ));
        }
        for error in &text.unreadable {
            if !self.input.was_found {
                return Err(Hint::error(error.to_string(), error.hint()));
            }
            self.failed.push(error.to_string());
        }
        self.sealed_before = text.sealed_before;
        if text.secrets() > 0 {
            let rules = certificates.rules(target)?;
            self.step = Step::ToSeal(text, certificates.of(&rules).await?, rules.scope);
            return Ok(());
        }
        if !self.input.was_found && text.sealed_before == 0 && text.foreign.is_empty() {
            if let Step::AsItIs(source) = &self.step
                && source.trim().is_empty()
            {
                return Err(Hint::error(
                    format!("{} is empty", self.input.name()),
                    "in a pipe, check whether the command before `gitseal seal` failed",
                ));
            }
            if let Some(error) = text.broken {
                return Err(Hint::error(error.to_string(), error.hint()));
            }
            return Err(Hint::error(
                format!("{} holds no Secret", self.input.name()),
                "a Secret has `apiVersion: v1` and `kind: Secret`; to seal values without a Secret: --name NAME \
                 --from-file FILE",
            ));
        }
        Ok(())
    }

    fn seal(mut self, settings: &Settings) -> anyhow::Result<Self> {
        if let Step::ToSeal(text, certificate, scope) = std::mem::replace(&mut self.step, Step::Failed) {
            match text.seal(&settings.sealer(&certificate, scope)) {
                Ok((text, entries)) => self.step = Step::Sealed(text, entries),
                Err(error) => self.fail(error)?,
            }
        }
        Ok(self)
    }

    fn write(mut self, in_place: bool) -> anyhow::Result<Self> {
        if let (Step::Sealed(text, _), Some(path)) = (&self.step, self.input.path())
            && self.input.is_in_place(in_place)
            && let Err(error) = edit::replace(path, text.as_bytes())
        {
            self.fail(error)?;
        }
        Ok(self)
    }

    /// Adds the file to the results. Returns its text if it is to be printed.
    fn finish(self, in_place: bool, outcome: &mut Outcome) -> Option<String> {
        outcome.failed.extend(self.failed);
        outcome.sealed_before += self.sealed_before;
        let text = match self.step {
            Step::Failed | Step::ToSeal(..) => return None,
            Step::AsItIs(text) => text.to_owned(),
            Step::Sealed(text, entries) => {
                outcome.sealed.extend(entries);
                text
            }
        };
        (!self.input.is_in_place(in_place)).then_some(text)
    }
}
