// Reads a JSON list of objects, and prints the status that kstatus computes for each of them, as a JSON list.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	var objects []map[string]any
	decoder := json.NewDecoder(os.Stdin)
	if err := decoder.Decode(&objects); err != nil {
		return fmt.Errorf("the list of objects: %w", err)
	}
	results := make([]string, 0, len(objects))
	for _, object := range objects {
		result, err := status.Compute(&unstructured.Unstructured{Object: whole(object).(map[string]any)})
		if err != nil {
			return fmt.Errorf("%v: %w", object, err)
		}
		results = append(results, string(result.Status))
	}
	return json.NewEncoder(os.Stdout).Encode(results)
}

// The library expects integers where JSON has numbers without a fraction.
func whole(value any) any {
	switch value := value.(type) {
	case float64:
		if value == float64(int64(value)) {
			return int64(value)
		}
	case map[string]any:
		for key, child := range value {
			value[key] = whole(child)
		}
	case []any:
		for index, child := range value {
			value[index] = whole(child)
		}
	}
	return value
}
