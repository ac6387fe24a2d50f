//! Frames: the protocol between the worker and the program that started it.
//!
//! A frame has three parts: four bytes (big endian) with the length of the other two parts, one byte with the kind of
//! the frame, and the body. The worker's side is in `go/frames.go`.

use std::io::{self, Read, Write};

/// The kind of a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// To the worker, JSON: what it should render.
    Render = b'R',
    /// To the worker, JSON: the names in the directory at the requested path.
    Directory = b'D',
    /// To the worker: the bytes of the file at the requested path; or, JSON: the requested remote base or chart.
    File = b'F',
    /// To the worker, empty: there is nothing at the requested path.
    Absent = b'A',
    /// From the worker, UTF-8: the path of a file or directory that it wants to read.
    Ask = b'Q',
    /// From the worker, UTF-8: the URL of a remote base, as it is in a kustomization.
    Remote = b'U',
    /// From the worker, JSON: a chart of a chart repository or registry.
    Chart = b'C',
    /// From the worker, JSON: what was rendered.
    Result = b'M',
    /// From the worker, JSON: why nothing was rendered.
    Error = b'E',
}

/// Why bytes are not a valid frame.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("a frame of {0} bytes")]
    Length(u32),
    #[error("a frame of the unknown kind {0}")]
    Kind(u8),
}

/// Reads the kind of the next frame of the worker, and the length of its body, which is less than `longest` bytes. Returns
/// `None` if the pipe ended and no frame had begun.
pub(crate) fn head(from: &mut impl Read, longest: u32) -> Result<Option<(Kind, u32)>, FrameError> {
    let mut length = [0; 4];
    match from.read(&mut length)? {
        0 => return Ok(None),
        some => from.read_exact(&mut length[some..])?,
    }
    let length = u32::from_be_bytes(length);
    if length == 0 || length > longest {
        return Err(FrameError::Length(length));
    }
    let mut kind = [0];
    from.read_exact(&mut kind)?;
    let kind = match kind[0] {
        b'Q' => Kind::Ask,
        b'U' => Kind::Remote,
        b'C' => Kind::Chart,
        b'M' => Kind::Result,
        b'E' => Kind::Error,
        other => return Err(FrameError::Kind(other)),
    };
    Ok(Some((kind, length - 1)))
}

/// Reads the body of a frame.
pub(crate) fn body(from: &mut impl Read, length: u32) -> Result<Vec<u8>, FrameError> {
    // Memory is taken only as bytes arrive. Otherwise a worker could announce a long frame, send nothing, and still take
    // memory.
    let mut body = Vec::new();
    from.take(u64::from(length)).read_to_end(&mut body)?;
    if body.len() as u64 != u64::from(length) {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(body)
}

/// Writes one frame.
pub(crate) fn write(to: &mut impl Write, kind: Kind, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(body.len() + 1).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    to.write_all(&length.to_be_bytes())?;
    to.write_all(&[kind as u8])?;
    to.write_all(body)?;
    to.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: u32 = 1 << 10;

    fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 1).unwrap().to_be_bytes();
        [&length[..], &[kind], body].concat()
    }

    fn read(from: &mut &[u8], longest: u32) -> Result<Option<(Kind, Vec<u8>)>, FrameError> {
        let Some((kind, length)) = head(from, longest)? else { return Ok(None) };
        Ok(Some((kind, body(from, length)?)))
    }

    #[test]
    fn frames_are_read_one_after_the_other() {
        let bytes = [frame(b'Q', b"a/b"), frame(b'M', b"{}")].concat();
        let mut from = bytes.as_slice();
        assert_eq!(read(&mut from, LONGEST).unwrap(), Some((Kind::Ask, b"a/b".to_vec())));
        assert_eq!(read(&mut from, LONGEST).unwrap(), Some((Kind::Result, b"{}".to_vec())));
        assert_eq!(read(&mut from, LONGEST).unwrap(), None);
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        let long = [&u32::MAX.to_be_bytes()[..], b"M"].concat();
        for wrong in [&[0, 0, 0, 0][..], &long, &frame(b'F', b""), &frame(b'Q', b"abc")[..6], &[0, 0]] {
            assert!(read(&mut &*wrong, LONGEST).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_written_is_as_long_as_it_says() {
        let mut bytes = Vec::new();
        write(&mut bytes, Kind::File, b"abc").unwrap();
        assert_eq!(bytes, frame(b'F', b"abc"));
    }
}
