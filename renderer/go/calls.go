package main

import (
	"maps"
	"reflect"
	"slices"
	"text/template"
	"time"

	"github.com/Masterminds/sprig/v3"
)

// changing are the functions of templates that return something else at each call, and with which arguments they do.
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
	// These take the current time for whatever is no time.
	for name, at := range map[string]int{"date": 1, "dateInZone": 1, "date_in_zone": 1, "htmlDate": 0, "htmlDateInZone": 0} {
		made[name] = func(arguments []reflect.Value) bool { return !isTime(arguments[at].Interface()) }
	}
	// And this one tells how long ago a time was.
	made["durationRound"] = func(arguments []reflect.Value) bool {
		_, is := arguments[0].Interface().(time.Time)
		return is
	}
	return made
}()

// lookup is what a template looked up in the cluster.
type lookup struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace"`
	Name       string `json:"name"`
}

// The most lookups that are told.
const mostLookups = 1000

// calls is what templates called that a reader of their result has to know.
type calls struct {
	called  map[string]bool
	lookups []lookup
	known   map[lookup]bool
}

// functions take the place of Helm's: each does the same, and notes that it was called.
func (c *calls) functions() template.FuncMap {
	c.called, c.known = map[string]bool{}, map[lookup]bool{}
	known := sprig.TxtFuncMap()
	made := template.FuncMap{
		"lookup": c.lookup,
		// Helm's order is random.
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

// names are the functions that were called and return something else at each call.
func (c *calls) names() []string { return slices.Sorted(maps.Keys(c.called)) }

// lookup finds nothing, as that of `helm template`.
func (c *calls) lookup(apiVersion, kind, namespace, name string) (map[string]any, error) {
	asked := lookup{apiVersion, kind, namespace, name}
	if !c.known[asked] && len(c.lookups) < mostLookups {
		c.known[asked] = true
		c.lookups = append(c.lookups, asked)
	}
	return map[string]any{}, nil
}

// noted is a function that does what another does, after `note` has seen its arguments.
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

// keys are the keys of some tables, those of each sorted.
func keys(tables ...map[string]any) []string {
	found := []string{}
	for _, table := range tables {
		found = append(found, slices.Sorted(maps.Keys(table))...)
	}
	return found
}

// values are the values of a table, sorted by their keys.
func values(table map[string]any) []any {
	found := []any{}
	for _, key := range slices.Sorted(maps.Keys(table)) {
		found = append(found, table[key])
	}
	return found
}
