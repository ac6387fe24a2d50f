package main

import (
	"context"
	"maps"
	"reflect"
	"slices"
	"text/template"
	"time"

	"github.com/Masterminds/sprig/v3"
	"helm.sh/helm/v4/pkg/chart/common"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/engine"
)

// changing lists the template functions that can return a different value at each call. The function beside each name
// says whether it does so with the given arguments.
var changing = func() map[string]func([]reflect.Value) bool {
	made := map[string]func([]reflect.Value) bool{}
	for _, name := range []string{
		"now", "ago",
		"randAlphaNum", "randAlpha", "randNumeric", "randAscii", "randBytes", "randInt", "shuffle", "uuidv4",
		"bcrypt", "htpasswd", "encryptAES",
		"genPrivateKey", "genCA", "genCAWithKey", "genSelfSignedCert", "genSelfSignedCertWithKey", "genSignedCert", "genSignedCertWithKey",
	} {
		made[name] = func([]reflect.Value) bool { return true }
	}
	// These functions use the current time if the argument is not a time.
	for name, at := range map[string]int{"date": 1, "dateInZone": 1, "date_in_zone": 1, "htmlDate": 0, "htmlDateInZone": 0} {
		made[name] = func(arguments []reflect.Value) bool { return !isTime(arguments[at].Interface()) }
	}
	// For a time, durationRound returns how long ago that time was.
	made["durationRound"] = func(arguments []reflect.Value) bool {
		_, is := arguments[0].Interface().(time.Time)
		return is
	}
	return made
}()

// lookup is one call of the template function `lookup`, which reads from the cluster.
type lookup struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace"`
	Name       string `json:"name"`
}

// The most lookups that are reported.
const mostLookups = 1000

// calls notes the calls that make the result differ from what the same chart gives elsewhere or later: lookups in the
// cluster that have no answer, and functions that return a different value each time.
type calls struct {
	called  map[string]bool
	lookups []lookup
	known   map[lookup]bool
	// The answers to lookups.
	answers []lookupAnswer
	// This lookup fails, so that the error of the template says where it is.
	refused *lookup
}

// render renders the templates of a chart, and notes the calls.
func (c *calls) render(loaded *chart.Chart, scope common.Values) (map[string]string, error) {
	return engine.Engine{CustomTemplateFuncs: c.functions()}.RenderWithContext(context.Background(), loaded, scope)
}

// functions returns replacements for functions of Helm. Each does the same as Helm's, and notes that it was called.
func (c *calls) functions() template.FuncMap {
	c.called, c.known = map[string]bool{}, map[lookup]bool{}
	known := sprig.TxtFuncMap()
	made := template.FuncMap{
		"lookup": c.lookup,
		// In Helm, the order of keys and values is random. Here, it is always the same.
		"keys":   keys,
		"values": values,
	}
	for name, changes := range changing {
		made[name] = noted(known[name], func(arguments []reflect.Value) {
			if changes(arguments) {
				c.called[name] = true
			}
		})
	}
	return made
}

// names returns the functions that were called and return a different value at each call.
func (c *calls) names() []string { return slices.Sorted(maps.Keys(c.called)) }

// lookup finds what the request has for this call. Without an answer, it finds nothing, as in `helm template`.
func (c *calls) lookup(apiVersion, kind, namespace, name string) (map[string]any, error) {
	asked := lookup{apiVersion, kind, namespace, name}
	for _, known := range c.answers {
		if known.isFor(asked) {
			return known.found(asked)
		}
	}
	if c.refused != nil && *c.refused == asked {
		return nil, errRefused
	}
	if !c.known[asked] && len(c.lookups) < mostLookups {
		c.known[asked] = true
		c.lookups = append(c.lookups, asked)
	}
	return map[string]any{}, nil
}

// noted wraps a function: the arguments are first passed to `note`.
func noted(function any, note func([]reflect.Value)) any {
	real := reflect.ValueOf(function)
	return reflect.MakeFunc(real.Type(), func(arguments []reflect.Value) []reflect.Value {
		note(arguments)
		if real.Type().IsVariadic() {
			return real.CallSlice(arguments)
		}
		return real.Call(arguments)
	}).Interface()
}

func isTime(value any) bool {
	switch value.(type) {
	case time.Time, *time.Time, int64, int, int32:
		return true
	}
	return false
}

// keys returns the keys of the tables, table by table, each sorted.
func keys(tables ...map[string]any) []string {
	found := []string{}
	for _, table := range tables {
		found = append(found, slices.Sorted(maps.Keys(table))...)
	}
	return found
}

// values returns the values of a table, sorted by their keys.
func values(table map[string]any) []any {
	found := []any{}
	for _, key := range slices.Sorted(maps.Keys(table)) {
		found = append(found, table[key])
	}
	return found
}
