package main

import (
	"bytes"
	"encoding/json"
	"strings"

	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/strvals"
)

// givenValues are values for a chart, in one of several forms: exactly one field is set.
type givenValues struct {
	// File is a file of the repository.
	File string `json:"file"`
	// YAML is a text from outside of the repository, which the parent process has read.
	YAML *namedText `json:"yaml"`
	// Set, SetString and SetJSON are arguments of Helm's flags --set, --set-string and --set-json.
	Set       string `json:"set"`
	SetString string `json:"setString"`
	SetJSON   string `json:"setJson"`
}

type namedText struct {
	// Name is the name used in messages.
	Name string `json:"name"`
	Text string `json:"text"`
}

// merged returns all given values as one table. Later ones replace earlier ones.
func merged(given []givenValues, files *repository) (map[string]any, error) {
	values := map[string]any{}
	for _, some := range given {
		var err error
		switch {
		case some.File != "":
			var content []byte
			if content, err = files.ReadFile(some.File); err != nil {
				return nil, failed("the values cannot be read: the repository has no file '%s'", some.File)
			}
			values, err = withText(values, some.File, content)
		case some.YAML != nil:
			values, err = withText(values, some.YAML.Name, []byte(some.YAML.Text))
		case some.Set != "":
			err = asFlag("--set", some.Set, strvals.ParseInto(some.Set, values))
		case some.SetString != "":
			err = asFlag("--set-string", some.SetString, strvals.ParseIntoString(some.SetString, values))
		case some.SetJSON != "":
			values, err = withJSON(values, some.SetJSON)
		}
		if err != nil {
			return nil, err
		}
	}
	return values, nil
}

func withText(values map[string]any, name string, text []byte) (map[string]any, error) {
	some, err := loader.LoadValues(bytes.NewReader(text))
	if err != nil {
		return nil, notYAML(name, text, err)
	}
	return loader.MergeMaps(values, some), nil
}

func withJSON(values map[string]any, text string) (map[string]any, error) {
	if !strings.HasPrefix(strings.TrimSpace(text), "{") {
		return values, asFlag("--set-json", text, strvals.ParseJSON(text, values))
	}
	var some map[string]any
	if err := json.Unmarshal([]byte(text), &some); err != nil {
		return nil, asFlag("--set-json", text, err)
	}
	return loader.MergeMaps(values, some), nil
}

// asFlag says which flag is wrong. It leaves out the value, which may be secret.
func asFlag(flag, text string, err error) error {
	if err == nil {
		return nil
	}
	key, _, _ := strings.Cut(text, "=")
	return failed("%s %s=…: %s", flag, key, inOneLine(err.Error()))
}
