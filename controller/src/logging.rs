//! The log: every event is one line.
//!
//! Log messages contain names of files and objects, and texts of servers. These names and texts may contain commands
//! for a terminal, or look like another line of the log. So all text is escaped in this module, where an event becomes
//! a line.

use std::{
    fmt,
    io::{IsTerminal, stderr, stdout},
};

use manifests::{in_json, in_one_line};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    EnvFilter,
    field::RecordFields,
    fmt::{
        FmtContext, FormatEvent, FormatFields, SubscriberBuilder,
        format::{DefaultFields, Format, Json, JsonFields, Writer},
        writer::{BoxMakeWriter, MakeWriterExt as _},
    },
    registry::LookupSpan,
};

use flags::{LogFormat, Logs};

/// Starts logging, also of panics. This function must be called before anything is logged.
pub fn start(logs: &Logs) {
    let (writer, is_terminal) = if logs.log_info_stdout {
        let severe = stderr.with_max_level(Level::WARN);
        (BoxMakeWriter::new(severe.or_else(stdout)), stdout().is_terminal() && stderr().is_terminal())
    } else {
        (BoxMakeWriter::new(stderr), stderr().is_terminal())
    };
    let is_coloured = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    match logs.log_format {
        LogFormat::Text => text(logs).with_writer(writer).with_ansi(is_coloured).init(),
        LogFormat::Json => json(logs).with_writer(writer).init(),
    }
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(%backtrace, "{panic}");
    }));
}

fn text(logs: &Logs) -> SubscriberBuilder<OneLine, Format, EnvFilter> {
    tracing_subscriber::fmt().with_env_filter(EnvFilter::new(&logs.log_level)).fmt_fields(OneLine(DefaultFields::new()))
}

fn json(logs: &Logs) -> SubscriberBuilder<JsonFields, OneLine<Format<Json>>, EnvFilter> {
    let builder = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(&logs.log_level));
    builder.json().map_event_format(OneLine)
}

/// Escapes what the inner formatter writes.
struct OneLine<F = DefaultFields>(F);

/// Formats the fields and the message, the part of a line that may contain foreign text.
impl<'w> FormatFields<'w> for OneLine {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut text = String::new();
        self.0.format_fields(Writer::new(&mut text), fields)?;
        writer.write_str(&in_one_line(&text))
    }
}

/// Formats the whole line as one JSON object.
impl<S, N> FormatEvent<S, N> for OneLine<Format<Json>>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::new();
        self.0.format_event(ctx, Writer::new(&mut line), event)?;
        writer.write_str(&in_json(&line))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use clap::Parser as _;

    use super::*;
    use flags::Config;

    const HOSTILE: &str = "a\u{1b}[2Jb\u{7f}c\u{9b}2Jd\u{202e}e\u{2028}f\n2026-01-01T00:00:00Z ERROR forged";

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Buffer {
        fn line(&self) -> String {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            let line = text.strip_suffix('\n').unwrap_or_else(|| panic!("no line: {text:?}"));
            assert!(!line.contains(manifests::is_no_text), "{line:?}");
            line.to_owned()
        }
    }

    fn log_something() {
        let span = tracing::info_span!("pass", sync = HOSTILE);
        let _in_it = span.enter();
        tracing::warn!(file = HOSTILE, error = %HOSTILE, debug = ?HOSTILE, "{HOSTILE}");
    }

    #[test]
    fn an_event_is_one_line_without_commands() {
        let logs = Config::parse_from(["gitseal-controller"]).logs;
        for is_coloured in [false, true] {
            let out = Buffer::default();
            let writer = out.clone();
            let subscriber = text(&logs).with_ansi(is_coloured).with_writer(move || writer.clone()).finish();
            tracing::subscriber::with_default(subscriber, log_something);
            let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
            // Our own colour codes, around the time and the level.
            let own = |text: &str| {
                ["\u{1b}[2m", "\u{1b}[0m", "\u{1b}[33m", "\u{1b}[1m"]
                    .iter()
                    .fold(text.to_owned(), |text, own| text.replace(own, ""))
            };
            assert_eq!(own(&text) != text, is_coloured, "{text:?}");
            let plain = Buffer(Arc::new(Mutex::new(own(&text).into_bytes())));
            assert_eq!(plain.line().matches("ERROR forged").count(), 5, "{text:?}");
        }
    }

    #[test]
    fn an_event_in_json_says_all_of_it() {
        let logs = Config::parse_from(["gitseal-controller"]).logs;
        let out = Buffer::default();
        let writer = out.clone();
        let subscriber = json(&logs).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, log_something);
        let line: serde_json::Value = serde_json::from_str(&out.line()).unwrap();
        assert_eq!((&line["fields"]["message"], &line["fields"]["file"]), (&HOSTILE.into(), &HOSTILE.into()));
    }
}
