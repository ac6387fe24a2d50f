//! PEM in and out.
//!
//! PEM is read as leniently as by Go's `encoding/pem` (text between blocks, lines of any width, either line ending), because
//! every certificate or key that the Sealed Secrets controller accepts must be accepted here. It is read into memory that is
//! wiped, because a block can be a private key. No PEM library that we know does both.

use zeroize::Zeroizing;

use crate::base64_text;

/// No certificate and no key that is accepted here comes near this size.
const MAX_BYTES: usize = 1 << 20;
const LINE_WIDTH: usize = 64;

/// Why a text is not usable PEM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PemError {
    /// The text is larger than any certificate or key.
    #[error("larger than {MAX_BYTES} bytes")]
    TooLarge,
    /// A `BEGIN` line has no matching `END` line.
    #[error("a BEGIN line has no matching END line: the file looks truncated")]
    Unterminated,
    /// A block has header lines, as encrypted keys of the traditional format do.
    #[error("a PEM block has header lines, as encrypted keys do; decrypt the key first (openssl rsa)")]
    Headers,
    /// A block's body is not base64.
    #[error("the body of a PEM block is not base64")]
    NotBase64,
}

/// A block's label (`CERTIFICATE`, `RSA PRIVATE KEY`, …) and its DER.
pub(crate) type Block<'a> = (&'a str, Zeroizing<Vec<u8>>);

/// The first block of `text` whose label is among `labels`; other blocks and the text between blocks are skipped.
pub(crate) fn find<'a>(text: &'a [u8], labels: &[&str]) -> Result<Option<Block<'a>>, PemError> {
    if text.len() > MAX_BYTES {
        return Err(PemError::TooLarge);
    }
    let mut lines = text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    while let Some(line) = lines.next() {
        let Some(label) = label_of(line).filter(|label| labels.contains(label)) else {
            continue;
        };
        let mut body = Zeroizing::new(Vec::with_capacity(text.len()));
        loop {
            let line = lines.next().ok_or(PemError::Unterminated)?;
            if is_end(line, label) {
                break;
            } else if line.starts_with(b"-----") {
                return Err(PemError::Unterminated);
            } else if line.contains(&b':') {
                return Err(PemError::Headers);
            }
            body.extend_from_slice(line);
        }
        let der = base64_text::decode(&body).map_err(|_| PemError::NotBase64)?;
        return Ok(Some((label, der)));
    }
    Ok(None)
}

/// One block with lines of 64 characters, each ended by a line feed.
pub(crate) fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(base64_text::encode(der));
    // Allocates room for the whole text at once, because a growing string would leave copies of a private key in memory.
    let mut pem = Zeroizing::new(String::with_capacity(body.len() + body.len() / LINE_WIDTH + 2 * label.len() + 64));
    for part in ["-----BEGIN ", label, "-----\n"] {
        pem.push_str(part);
    }
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(LINE_WIDTH.min(rest.len()));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    for part in ["-----END ", label, "-----\n"] {
        pem.push_str(part);
    }
    pem
}

fn label_of(line: &[u8]) -> Option<&str> {
    let label = line.strip_prefix(b"-----BEGIN ")?.strip_suffix(b"-----")?;
    std::str::from_utf8(label).ok()
}

fn is_end(line: &[u8], label: &str) -> bool {
    line.strip_prefix(b"-----END ").and_then(|line| line.strip_suffix(b"-----")) == Some(label.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find_one(text: &str) -> Result<Option<Vec<u8>>, PemError> {
        find(text.as_bytes(), &["KEY"]).map(|block| block.map(|(_, der)| der.to_vec()))
    }

    #[test]
    fn blocks_of_any_length_go_both_ways() {
        for length in [0, 1, 47, 48, 49, 96, 1000] {
            let der = vec![0xa5; length];
            let pem = encode("KEY", &der);
            assert!(pem.lines().all(|line| line.len() <= LINE_WIDTH || line.starts_with('-')), "{length}");
            assert!(pem.ends_with("-----END KEY-----\n"));
            assert_eq!(find_one(&pem), Ok(Some(der)));
        }
    }

    #[test]
    fn writing_never_grows_the_buffer() {
        for length in 0..300_usize {
            let body = length.div_ceil(3) * 4;
            let label = "RSA PRIVATE KEY";
            let reserved = body + body / LINE_WIDTH + 2 * label.len() + 64;
            assert_eq!(encode(label, &vec![7; length]).capacity(), reserved, "{length}");
        }
    }

    #[test]
    fn other_blocks_and_text_are_skipped() {
        let text = "subject=x\n-----BEGIN OTHER-----\n!\n-----END OTHER-----\nmore\n-----BEGIN KEY-----\nQQ==\n-----END KEY-----\n-----BEGIN KEY-----";
        assert_eq!(find_one(text), Ok(Some(b"A".to_vec())));
        assert_eq!(find_one("-----BEGIN OTHER-----\nQQ==\n-----END OTHER-----\n"), Ok(None));
        assert_eq!(find_one(""), Ok(None));
    }

    #[test]
    fn broken_blocks_are_refused() {
        assert_eq!(find_one("-----BEGIN KEY-----\nQQ==\n"), Err(PemError::Unterminated));
        assert_eq!(find_one("-----BEGIN KEY-----\nQQ==\n-----END OTHER-----\n"), Err(PemError::Unterminated));
        assert_eq!(find_one("-----BEGIN KEY-----\nProc-Type: 4\n\nQQ==\n-----END KEY-----\n"), Err(PemError::Headers));
        assert_eq!(find_one("-----BEGIN KEY-----\nQ\n-----END KEY-----\n"), Err(PemError::NotBase64));
        assert_eq!(find_one(&"\n".repeat(MAX_BYTES + 1)), Err(PemError::TooLarge));
    }
}
