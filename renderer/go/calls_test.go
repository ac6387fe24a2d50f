package main

import (
	"slices"
	"testing"

	"github.com/Masterminds/sprig/v3"
)

// sprig itself knows which of its functions depend on more than their arguments. All of them are recorded, unless Helm's
// engine does not have them or the result depends on the arguments after all.
func TestFunctionsThatChangeAreRecorded(t *testing.T) {
	// Helm removes or replaces the first three, and the others modify the time that is their argument.
	others := []string{"env", "expandenv", "getHostByName", "date_modify", "dateModify"}
	all, fixed := sprig.TxtFuncMap(), sprig.HermeticTxtFuncMap()
	for name := range all {
		if fixed[name] == nil && changing[name] == nil && !slices.Contains(others, name) {
			t.Errorf("%s is not recorded", name)
		}
	}
	for name := range changing {
		if all[name] == nil {
			t.Errorf("there is no function %s", name)
		}
	}
}

func TestListsOfATableAreSorted(t *testing.T) {
	table := map[string]any{"c": 1, "a": 2, "b": 3}
	for range 20 {
		if found := keys(table, map[string]any{"a": 4}); !slices.Equal(found, []string{"a", "b", "c", "a"}) {
			t.Fatal(found)
		}
		if found := values(table); !slices.Equal(found, []any{2, 3, 1}) {
			t.Fatal(found)
		}
	}
}

func TestLinesAreCountedFromTheTopOfTheFile(t *testing.T) {
	for text, expected := range map[string]int{
		"a: b: c\n":                 0,
		"---\na: b: c\n":            1,
		"a: 1\n---\n\nb: c: d\n":    2,
		"a: 1\r\n--- \r\nb: c: d\n": 2,
		"a: b: c\n---\na: 1\n":      0,
	} {
		if found := before([]byte(text)); found != expected {
			t.Errorf("%q: %d, not %d", text, found, expected)
		}
	}
}
