package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
)

const (
	// The most warnings of one render that are told.
	mostWarnings = 50
	// The longest message, in bytes.
	longestMessage = 2000
)

// warnings keeps what libraries warn of. Nothing of it reaches standard error, where the other side expects only why this
// process ended.
type warnings struct {
	told []string
}

// collectWarnings keeps warnings from now on, and returns what tells them.
func collectWarnings() func() []string {
	kept := &warnings{}
	// This is where the package log writes, too.
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

// Nothing that is linked here gives attributes to a logger.
func (w *warnings) WithAttrs([]slog.Attr) slog.Handler { return w }
func (w *warnings) WithGroup(string) slog.Handler      { return w }

// shortened is a text of at most longestMessage bytes.
func shortened(text string) string {
	if len(text) <= longestMessage {
		return text
	}
	return strings.ToValidUTF8(text[:longestMessage], "") + "…"
}

// inOneLine joins the lines of a text.
func inOneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
