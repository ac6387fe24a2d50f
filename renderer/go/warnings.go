package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
)

const (
	// The most warnings of one render that are reported.
	mostWarnings = 50
	// The longest message, in bytes.
	longestMessage = 2000
)

// warnings keeps the warnings of libraries. They must not reach standard error: what the parent process reads there, it
// takes for the reason why this process ended.
type warnings struct {
	told []string
}

// collectWarnings keeps warnings from now on. The returned function returns the warnings kept so far.
func collectWarnings() func() []string {
	kept := &warnings{}
	// The package log then writes to this logger, too.
	slog.SetDefault(slog.New(kept))
	return func() []string { return kept.told }
}

func (w *warnings) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

func (w *warnings) Handle(_ context.Context, record slog.Record) error {
	text, isWarning := record.Message, record.Level >= slog.LevelWarn
	for _, begin := range []string{"warning: ", "Warning: "} {
		if rest, is := strings.CutPrefix(text, begin); is {
			text, isWarning = rest, true
		}
	}
	if !isWarning || len(w.told) == mostWarnings {
		return nil
	}
	record.Attrs(func(attribute slog.Attr) bool {
		text += fmt.Sprintf(", %s: %s", attribute.Key, attribute.Value)
		return true
	})
	w.told = append(w.told, shortened(inOneLine(text)))
	return nil
}

// No library in this program uses a logger with attributes or groups, so both are ignored.
func (w *warnings) WithAttrs([]slog.Attr) slog.Handler { return w }
func (w *warnings) WithGroup(string) slog.Handler      { return w }

// shortened cuts a text to at most longestMessage bytes.
func shortened(text string) string {
	if len(text) <= longestMessage {
		return text
	}
	return strings.ToValidUTF8(text[:longestMessage], "") + "…"
}

// inOneLine joins the lines of a text.
func inOneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
