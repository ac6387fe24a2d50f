//! Errors in kubeseal's words, because scripts may look for them.

use std::io;

/// What the operating system said about a file.
pub(super) fn file_error(file: &str, error: &io::Error) -> anyhow::Error {
    anyhow::anyhow!("open {file}: {}", reason(error))
}

/// The reason alone, in the words of the C library.
pub(super) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #[test]
    fn files_that_are_not_there_are_named() {
        let error = std::fs::read("no/such/file").unwrap_err();
        assert_eq!(super::file_error("x", &error).to_string(), "open x: no such file or directory");
    }
}
