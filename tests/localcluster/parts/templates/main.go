// Renders templates as the Sealed Secrets controller does: with Go's text/template, over a map[string]string. Templates can
// use sprig's generic functions, except those that read the environment.
//
// Standard input is one JSON object, {"data": {NAME: BASE64}, "templates": [TEXT], "hashes": [{"hash", "password"}]};
// standard output is {"results": [{"output": BASE64} or {"error": TEXT}], "hashes": [BOOL]}, in the same order.
package main

import (
	"bytes"
	"encoding/json"
	"log"
	"os"
	"text/template"

	"github.com/Masterminds/sprig/v3"
	"golang.org/x/crypto/bcrypt"
)

type input struct {
	Data      map[string][]byte `json:"data"`
	Templates []string          `json:"templates"`
	Hashes    []struct {
		Hash     string `json:"hash"`
		Password string `json:"password"`
	} `json:"hashes"`
}

type result struct {
	Output []byte `json:"output"`
	Error  string `json:"error,omitempty"`
}

type output struct {
	Results []result `json:"results"`
	Hashes  []bool   `json:"hashes"`
}

func main() {
	log.SetFlags(0)
	var in input
	if err := json.NewDecoder(os.Stdin).Decode(&in); err != nil {
		log.Fatalf("cannot read the input: %v", err)
	}
	functions := sprig.GenericFuncMap()
	for _, name := range []string{"env", "expandenv", "getHostByName"} {
		delete(functions, name)
	}
	data := map[string]string{}
	for name, value := range in.Data {
		data[name] = string(value)
	}
	out := output{Results: []result{}, Hashes: []bool{}}
	for _, text := range in.Templates {
		out.Results = append(out.Results, render(functions, text, data))
	}
	for _, check := range in.Hashes {
		err := bcrypt.CompareHashAndPassword([]byte(check.Hash), []byte(check.Password))
		out.Hashes = append(out.Hashes, err == nil)
	}
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		log.Fatalf("cannot write the output: %v", err)
	}
}

func render(functions template.FuncMap, text string, data map[string]string) result {
	parsed, err := template.New("key").Funcs(functions).Parse(text)
	if err != nil {
		return result{Error: err.Error()}
	}
	var rendered bytes.Buffer
	if err := parsed.Execute(&rendered, data); err != nil {
		return result{Error: err.Error()}
	}
	return result{Output: rendered.Bytes()}
}
