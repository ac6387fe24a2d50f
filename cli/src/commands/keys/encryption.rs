//! Backups as age files. The plaintext is only in memory that is wiped.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use age::armor::{ArmoredReader, ArmoredWriter, Format};
use age::secrecy::SecretString;
use age::{DecryptError, Decryptor, Encryptor, IdentityFile, scrypt, x25519};
use anyhow::Context;
use inquire::{Password, PasswordDisplayMode};
use zeroize::Zeroizing;

use crate::commands::seal::{read_file, stdin_is_terminal};
use crate::output::Hint;

/// The work of scrypt, as a power of two: the value that the program age uses, and the highest that it accepts.
/// Without this value, the library would choose one by the speed of this machine.
const WORK_FACTOR: u8 = 18;
const MAX_WORK_FACTOR: u8 = 22;

/// The recipients of a backup.
#[derive(clap::Args)]
pub(super) struct Encryption {
    /// Encrypt to this age recipient (age1…); can be given several times
    #[arg(short, long, value_name = "RECIPIENT")]
    recipient: Vec<String>,

    /// Encrypt to the age recipients in this file, one per line
    #[arg(short = 'R', long, value_name = "FILE")]
    recipients_file: Vec<PathBuf>,

    /// Encrypt with a passphrase, which is asked for twice
    #[arg(short, long, conflicts_with_all = ["recipient", "recipients_file"])]
    passphrase: bool,

    /// Encrypt with the passphrase in this file (its first line)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["recipient", "recipients_file", "passphrase"])]
    passphrase_file: Option<PathBuf>,

    /// Write the age file as text (PEM)
    #[arg(short, long)]
    pub(super) armor: bool,
}

/// How a backup is decrypted.
#[derive(clap::Args, Default)]
pub(in crate::commands) struct Decryption {
    /// Decrypt with the age identities in this file; can be given several times
    #[arg(short, long, value_name = "FILE")]
    identity: Vec<PathBuf>,

    /// Decrypt with a passphrase, which is asked for
    #[arg(short, long, conflicts_with = "identity")]
    passphrase: bool,

    /// Decrypt with the passphrase in this file (its first line)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["identity", "passphrase"])]
    passphrase_file: Option<PathBuf>,
}

/// Who can decrypt a backup. The command finds this out before it reads anything from the cluster.
pub(super) enum Lock {
    Recipients(Vec<x25519::Recipient>),
    Passphrase(SecretString),
}

impl Encryption {
    /// Whether there is any recipient or passphrase.
    pub(super) fn is_given(&self) -> bool {
        !self.recipient.is_empty()
            || !self.recipients_file.is_empty()
            || self.passphrase
            || self.passphrase_file.is_some()
    }

    /// # Errors
    /// There is neither a recipient nor a passphrase, so nobody could decrypt the backup; or a text that was given as a
    /// recipient is not one. The error does not contain the text, because it may be a secret identity.
    pub(super) fn lock(&self) -> anyhow::Result<Lock> {
        if let Some(file) = &self.passphrase_file {
            return passphrase_of(file).map(Lock::Passphrase);
        }
        if self.passphrase {
            return new_passphrase().map(Lock::Passphrase);
        }
        let mut recipients = Vec::new();
        for text in &self.recipient {
            recipients.push(recipient(text.trim()).context("--recipient cannot be used")?);
        }
        for file in &self.recipients_file {
            let text = read_file(file)?;
            let text = std::str::from_utf8(&text).ok().with_context(|| format!("{} is not text", file.display()))?;
            for (index, line) in text.lines().enumerate() {
                let line = line.trim();
                if line.is_empty() || line.starts_with('#') {
                    continue;
                }
                let place = || format!("{}:{} cannot be used", file.display(), index + 1);
                recipients.push(recipient(line).with_context(place)?);
            }
        }
        if recipients.is_empty() {
            return Err(Hint::wrong_usage(
                "nobody would be able to decrypt this backup",
                "name at least one recipient or a passphrase: --recipient age1…, --recipients-file FILE, --passphrase or --passphrase-file FILE",
            ));
        }
        Ok(Lock::Recipients(recipients))
    }
}

impl Lock {
    /// Encrypts the plaintext as an age file.
    pub(super) fn encrypt(self, plaintext: &[u8], armor: bool) -> anyhow::Result<Vec<u8>> {
        let recipients: Vec<Box<dyn age::Recipient>> = match self {
            Self::Passphrase(passphrase) => {
                let mut recipient = scrypt::Recipient::new(passphrase);
                recipient.set_work_factor(WORK_FACTOR);
                vec![Box::new(recipient)]
            }
            Self::Recipients(recipients) => {
                recipients.into_iter().map(|recipient| Box::new(recipient) as Box<dyn age::Recipient>).collect()
            }
        };
        let encryptor = Encryptor::with_recipients(recipients.iter().map(|recipient| &**recipient))
            .map_err(|error| anyhow::anyhow!("{error}"))?;
        let format = if armor { Format::AsciiArmor } else { Format::Binary };
        let output = ArmoredWriter::wrap_output(Vec::new(), format)?;
        let mut writer = encryptor.wrap_output(output).context("cannot encrypt")?;
        writer.write_all(plaintext)?;
        Ok(writer.finish()?.finish()?)
    }
}

impl Decryption {
    /// A decryption with these identities, or with the passphrase that the flags in `encryption` name.
    pub(super) fn with(identity: Vec<PathBuf>, encryption: &Encryption) -> Self {
        let Encryption { passphrase, passphrase_file, .. } = encryption;
        Self { identity, passphrase: *passphrase, passphrase_file: passphrase_file.clone() }
    }

    /// Whether the user said how a file is decrypted.
    pub(super) fn is_given(&self) -> bool {
        !self.identity.is_empty() || self.passphrase || self.passphrase_file.is_some()
    }

    /// The content of a file that may be encrypted: the plaintext of an age file, or the file as it is.
    pub(in crate::commands) fn open(&self, name: &str, file: Zeroizing<Vec<u8>>) -> anyhow::Result<Zeroizing<Vec<u8>>> {
        if is_encrypted(&file) { self.decrypt(name, &file) } else { Ok(file) }
    }

    /// The plaintext of an age file, binary or text.
    ///
    /// # Errors
    /// The file is not an age file, it was altered, or none of the identities decrypts it.
    pub(super) fn decrypt(&self, name: &str, file: &[u8]) -> anyhow::Result<Zeroizing<Vec<u8>>> {
        let failed = |error: DecryptError| refused(name, error);
        let decryptor = Decryptor::new(ArmoredReader::new(file)).map_err(failed)?;
        let mut identities: Vec<Box<dyn age::Identity>> = Vec::new();
        if decryptor.is_scrypt() {
            if !self.identity.is_empty() {
                return Err(Hint::error(format!("{name} is encrypted with a passphrase"), "use --passphrase"));
            }
            let passphrase = match &self.passphrase_file {
                Some(file) => passphrase_of(file)?,
                None => ask("Passphrase of the backup:", false)?,
            };
            let mut identity = scrypt::Identity::new(passphrase);
            identity.set_max_work_factor(MAX_WORK_FACTOR);
            identities.push(Box::new(identity));
        } else {
            if self.identity.is_empty() {
                return Err(Hint::error(format!("{name} is encrypted to age recipients"), "use --identity FILE"));
            }
            for path in &self.identity {
                identities.extend(identities_of(path)?);
            }
        }
        let mut reader = decryptor.decrypt(identities.iter().map(|identity| &**identity)).map_err(failed)?;
        // The plaintext is smaller than the file, so the buffer does not grow and leaves no copies.
        let mut plaintext = Zeroizing::new(Vec::with_capacity(file.len() + 1));
        reader.read_to_end(&mut plaintext).with_context(|| format!("{name} is cut off, or it was altered"))?;
        Ok(plaintext)
    }
}

/// Whether the file is an age file, binary or text.
pub(in crate::commands) fn is_encrypted(file: &[u8]) -> bool {
    let starts = [&b"age-encryption.org/"[..], b"-----BEGIN AGE ENCRYPTED FILE-----"];
    starts.iter().any(|start| file.trim_ascii_start().starts_with(start))
}

fn recipient(text: &str) -> anyhow::Result<x25519::Recipient> {
    if text.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") {
        return Err(Hint::error(
            "it is an identity, which is secret, and not a recipient",
            "the recipient is in the line `# public key: age1…` above the identity; `age-keygen -y FILE` prints the \
            recipient",
        ));
    }
    text.parse().map_err(|_| {
        Hint::error(
            "it is not an age recipient of the supported kind (X25519)",
            "a recipient looks like age1ql3z7hjy… and is made by `age-keygen`",
        )
    })
}

fn identities_of(path: &Path) -> anyhow::Result<Vec<Box<dyn age::Identity>>> {
    let bytes = read_file(path)?;
    let name = path.display();
    let unusable = || {
        Hint::new(
            format!("{name} holds no age identity that can be used"),
            "an identity file has lines such as AGE-SECRET-KEY-1…; if it is itself encrypted, decrypt it with `age \
             -d` first",
        )
    };
    let file = IdentityFile::from_buffer(&bytes[..]).with_context(unusable)?;
    let identities = file.into_identities().map_err(|error| anyhow::anyhow!("{error}")).with_context(unusable)?;
    if identities.is_empty() {
        return Err(anyhow::anyhow!("it has none").context(unusable()));
    }
    Ok(identities.into_iter().map(|identity| identity as Box<dyn age::Identity>).collect())
}

fn refused(name: &str, error: DecryptError) -> anyhow::Error {
    let hint = match error {
        DecryptError::NoMatchingKeys => "none of the identities can decrypt it: use another --identity",
        DecryptError::DecryptionFailed | DecryptError::KeyDecryptionFailed => "is it the right passphrase?",
        DecryptError::InvalidHeader | DecryptError::UnknownFormat | DecryptError::Io(_) => {
            "a backup is an age file, as `gitseal keys backup` and `age` write it"
        }
        _ => "the file may be damaged: use another copy of the backup",
    };
    anyhow::anyhow!("{error}").context(Hint::new(format!("cannot decrypt {name}"), hint))
}

/// The first line of a file, which may be a pipe.
fn passphrase_of(file: &Path) -> anyhow::Result<SecretString> {
    let bytes = read_file(file)?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match std::str::from_utf8(line) {
        Ok(text) if !text.is_empty() => Ok(SecretString::from(text.to_owned())),
        _ => Err(Hint::error(
            format!("{} holds no passphrase", file.display()),
            "its first line must be the passphrase, in UTF-8",
        )),
    }
}

fn new_passphrase() -> anyhow::Result<SecretString> {
    ask("Passphrase for the backup:", true)
}

fn ask(question: &str, twice: bool) -> anyhow::Result<SecretString> {
    if !stdin_is_terminal() {
        return Err(Hint::error(
            "there is no terminal to ask for the passphrase",
            "--passphrase-file FILE reads it from a file or a pipe, for example /dev/fd/3",
        ));
    }
    let prompt = Password::new(question).with_display_mode(PasswordDisplayMode::Masked).with_display_toggle_enabled();
    let prompt =
        if twice { prompt.with_custom_confirmation_message("Once more:") } else { prompt.without_confirmation() };
    let passphrase = prompt.prompt().context("no passphrase")?;
    if passphrase.is_empty() {
        return Err(Hint::error(
            "the passphrase is empty",
            "choose a long passphrase: anybody who guesses it can read every secret",
        ));
    }
    Ok(SecretString::from(passphrase))
}
