package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"k8s.io/apimachinery/pkg/runtime"
	// Reads whole numbers as Kubernetes' client does, which Helm asks: as integers.
	"k8s.io/apimachinery/pkg/util/json"
)

// lookupAnswer says what the cluster has for one entry of the list of objects that templates may look up.
type lookupAnswer struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	// Namespace is empty if objects of this kind have no namespace. Helm ignores the namespace in such a lookup.
	Namespace string `json:"namespace"`
	// Name is empty if the entry stands for all objects of the kind in the namespace.
	Name string `json:"name"`
	// AllNamespaces is true if the entry stands for all objects of a kind with namespaces, in all namespaces.
	AllNamespaces bool `json:"allNamespaces"`
	// Objects are the objects that exist, sorted by their namespaces and names.
	Objects []map[string]any `json:"objects"`
}

// answersOf reads answers. Each of them is a text in JSON.
func answersOf(texts []string) ([]lookupAnswer, error) {
	answers := make([]lookupAnswer, len(texts))
	for at, text := range texts {
		if err := json.Unmarshal([]byte(text), &answers[at]); err != nil {
			return nil, failed("what templates may look up cannot be read: %s", inOneLine(err.Error()))
		}
	}
	return answers, nil
}

// isKind says whether a call asks for objects of this kind.
func (a *lookupAnswer) isKind(asked lookup) bool {
	return a.APIVersion == asked.APIVersion && a.Kind == asked.Kind
}

// isFor says whether the answer is that to a call.
func (a *lookupAnswer) isFor(asked lookup) bool {
	if a.AllNamespaces {
		// An object in a namespace cannot be found by its name alone.
		return a.isKind(asked) && (asked.Namespace != "" || asked.Name == "")
	}
	return a.isKind(asked) && (a.Namespace == "" || a.Namespace == asked.Namespace) && (a.Name == "" || a.Name == asked.Name)
}

// found returns what Helm would return: an object or nothing, or a list. A template may change the result, so each call gets
// its own copy.
func (a *lookupAnswer) found(asked lookup) (map[string]any, error) {
	items := []any{}
	for _, object := range a.Objects {
		metadata, _ := object["metadata"].(map[string]any)
		if a.AllNamespaces && asked.Namespace != "" && metadata["namespace"] != asked.Namespace {
			continue
		}
		if asked.Name == "" {
			items = append(items, runtime.DeepCopyJSON(object))
		} else if metadata["name"] == asked.Name {
			return runtime.DeepCopyJSON(object), nil
		}
	}
	if asked.Name != "" {
		return map[string]any{}, nil
	}
	return map[string]any{"apiVersion": a.APIVersion, "kind": a.Kind + "List", "metadata": map[string]any{}, "items": items}, nil
}

// errRefused is the error of a lookup that has no answer. The reader gets another message.
var errRefused = errors.New("the lookup has no answer")

// The most lookups that a message names besides the first one.
const mostNamed = 5

// refused says which lookups of a chart have no answer, and where the first of them is. For this, the chart is rendered once
// more.
func (s *chartSource) refused(all calls, loaded *chart.Chart, scope common.Values) *failure {
	first := all.lookups[0]
	again := calls{answers: all.answers, refused: &first}
	where := "a template"
	if _, err := again.render(loaded, scope); err != nil {
		explained := s.explained(err).Message
		if place, _, isPlace := strings.Cut(explained, ": {{ "); isPlace && strings.Contains(explained, errRefused.Error()) {
			where = place
		}
	}
	var others []string
	for _, one := range all.lookups[1:] {
		if len(others) == mostNamed {
			others = append(others, fmt.Sprintf("%d more", len(all.lookups)-1-mostNamed))
			break
		}
		others = append(others, one.String())
	}
	message := fmt.Sprintf("%s looks up %s in the cluster, and %s", where, first, all.remedy(first))
	if len(others) > 0 {
		message += "; the chart also looks up " + strings.Join(others, ", ")
	}
	return &failure{Message: message, NotReproducible: true}
}

// remedy says why a lookup has no answer, and what to do.
func (c *calls) remedy(asked lookup) string {
	if asked.Kind == "Secret" {
		return "Secrets cannot be looked up, because what is rendered must not have their values: seal the value, and give it " +
			"to the chart as a sealed value (helm.valuesFrom with sealedSecret)"
	}
	entry := []string{"apiVersion: " + asked.APIVersion, "kind: " + asked.Kind}
	if asked.Namespace == "" && c.hasNamespaces(asked) {
		if asked.Name != "" {
			return "such an object is in a namespace: let the template name the namespace, or set the values that the chart would look up"
		}
		return "a lookup without a namespace means all namespaces: let the template name a namespace, add {" +
			inOneLine(strings.Join(append(entry, "allNamespaces: true"), ", ")) +
			"} to helm.lookup of the Sync, or set the values that the chart would look up"
	}
	for _, field := range [][2]string{{"namespace: ", asked.Namespace}, {"name: ", asked.Name}} {
		if field[1] != "" {
			entry = append(entry, field[0]+field[1])
		}
	}
	there := "} there, "
	if len(entry) == 2 {
		there = "} there, with allNamespaces: true if such objects are in namespaces, "
	}
	return "helm.lookup of the Sync does not have it: add {" + inOneLine(strings.Join(entry, ", ")) + there +
		"or set the values that the chart would look up"
}

// hasNamespaces says whether the answers show that objects of this kind are in namespaces.
func (c *calls) hasNamespaces(asked lookup) bool {
	return slices.ContainsFunc(c.answers, func(known lookupAnswer) bool {
		return known.isKind(asked) && (known.Namespace != "" || known.AllNamespaces)
	})
}

// String names what a call looks up.
func (l lookup) String() string {
	what := l.APIVersion + " " + l.Kind
	switch {
	case l.Name == "" && l.Namespace == "":
		what = "all " + what
	case l.Name == "":
		what = "all " + what + " in " + l.Namespace
	case l.Namespace == "":
		what += " " + l.Name
	default:
		what += " " + l.Namespace + "/" + l.Name
	}
	return shortened(inOneLine(what))
}
