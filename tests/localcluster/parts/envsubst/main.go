// Replaces variables in texts as Flux does: with its package envsubst, in the strict way in which a variable without a value and
// without a default is an error.
//
// Standard input is one JSON object, {"variables": {NAME: TEXT}, "texts": [TEXT]}; standard output is a list of {"output": TEXT}
// or {"error": TEXT}, in the same order.
package main

import (
	"encoding/json"
	"log"
	"os"

	"github.com/fluxcd/pkg/envsubst"
)

type input struct {
	Variables map[string]string `json:"variables"`
	Texts     []string          `json:"texts"`
}

type result struct {
	Output string `json:"output"`
	Error  string `json:"error,omitempty"`
}

func main() {
	log.SetFlags(0)
	var in input
	if err := json.NewDecoder(os.Stdin).Decode(&in); err != nil {
		log.Fatalf("cannot read the input: %v", err)
	}
	known := func(name string) (string, bool) {
		value, is := in.Variables[name]
		return value, is
	}
	var results []result
	for _, text := range in.Texts {
		var one result
		output, err := envsubst.Eval(text, known)
		if err != nil {
			one.Error = err.Error()
		} else {
			one.Output = output
		}
		results = append(results, one)
	}
	if err := json.NewEncoder(os.Stdout).Encode(results); err != nil {
		log.Fatalf("cannot write the output: %v", err)
	}
}
