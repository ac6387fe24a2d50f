package main

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// remoteFile marks the error of a refused download, so that explained finds it in Kustomize's error text.
const remoteFile = "a remote file"

// noNetwork is an HTTP transport that refuses every request of Kustomize.
type noNetwork struct{}

func (noNetwork) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, fmt.Errorf("%s is not fetched", remoteFile)
}

var (
	fromWhere = regexp.MustCompile(`accumulating resources from '([^']*)'`)
	notFound  = regexp.MustCompile(`accumulating resources from '([^']*)': read (\S*): file does not exist`)
	noTarget  = regexp.MustCompile(`unable to find one of .* in directory '([^']*)'`)
	twoFiles  = regexp.MustCompile(`Found multiple kustomization files under: (\S*)`)
	cycle     = regexp.MustCompile(`cycle detected: candidate root '([^']*)' contains visited root '([^']*)'`)
	plugin    = regexp.MustCompile(`unable to load external plugin '([^']*)'`)
	wrongYAML = regexp.MustCompile(`MalformedYAMLError: yaml: (?:line (\d+): )?(.*) in File: (\S+)`)
	twice     = regexp.MustCompile(`merging resources from '([^']*)': may not add resource with an already registered id: ([^\s']+)`)
	badRegexp = regexp.MustCompile("error parsing regexp: ([^:`]*)")
	noMatch   = regexp.MustCompile(`no resource matches strategic merge patch "([^"]*)": no matches for Id`)
	noMerge   = regexp.MustCompile(`merging from generator [^:]*: id resid\.ResId\{.*Kind:"([^"]*)".*Name:"([^"]*)".*\} does not exist; cannot merge or replace`)
	objectID  = regexp.MustCompile(`^([^.]+)\.(?:[^/]*)/(.*)\.([^.]*)$`)
	inQuotes  = regexp.MustCompile(`'(/[^']*)'`)
)

// explained turns an error of Kustomize into one short sentence, where that is possible. Kustomize's own text repeats the
// reason for each folder that leads to it. It also says of each path why it is not a file and why it is not a folder.
// `files` are the files that Kustomize read.
func explained(err error, files *repository) *failure {
	text := files.asInRepository(err.Error())
	last := func(pattern *regexp.Regexp) []string {
		if all := pattern.FindAllStringSubmatch(text, -1); all != nil {
			return all[len(all)-1]
		}
		return nil
	}
	from := ""
	if found := last(fromWhere); found != nil {
		from = found[1]
	}
	if found := last(wrongYAML); found != nil {
		line, _ := strconv.Atoi(found[1])
		return &failure{Message: fmt.Sprintf("%s is not YAML: %s", place(files.found(found[3]), line), withoutValues(found[2]))}
	}
	if found := last(cycle); found != nil {
		return &failure{Message: fmt.Sprintf("the kustomizations refer to each other: what '%s' needs leads back to '%s'", inside(found[2]), inside(found[1]))}
	}
	if strings.Contains(text, "no 'git' program on path") || strings.Contains(text, remoteFile) {
		return &failure{Message: fmt.Sprintf("'%s' is remote, which is not supported: add it to the repository", from)}
	}
	if found := last(noTarget); found != nil {
		return &failure{Message: fmt.Sprintf("the folder '%s' has no kustomization.yaml", inside(found[1]))}
	}
	if found := last(twoFiles); found != nil {
		return &failure{Message: fmt.Sprintf("the folder '%s' has more than one kustomization file", inside(found[1]))}
	}
	if found := last(notFound); found != nil {
		return &failure{Message: fmt.Sprintf("'%s' does not exist: the repository has no '%s'", found[1], inside(found[2]))}
	}
	if found := last(twice); found != nil {
		return &failure{Message: fmt.Sprintf("%s: there is another %s: keep one of the two", found[1], namedByID(found[2]))}
	}
	if found := last(badRegexp); found != nil {
		return &failure{Message: "a regular expression is not valid: " + found[1]}
	}
	if found := last(noMerge); found != nil {
		return &failure{Message: fmt.Sprintf("a generator merges or replaces %s %s, which does not exist: leave out its `behavior`, or add the %s as a resource", found[1], found[2], found[1])}
	}
	if found := last(noMatch); found != nil {
		return &failure{Message: fmt.Sprintf("a patch without target names %s, which does not exist: name an existing object, or give the patch a target", namedByID(found[1]))}
	}
	if strings.Contains(text, "must specify --enable-helm") {
		return &failure{Message: "helmCharts are not rendered: Kustomize would have to start another program for them"}
	}
	if found := last(plugin); found != nil {
		return &failure{Message: fmt.Sprintf("the plugin '%s' is not run: only plugins that are built into Kustomize can run", found[1])}
	}
	text = withoutValues(text)
	for strings.HasPrefix(text, "accumulating resources: ") {
		text = strings.TrimPrefix(text, "accumulating resources: ")
	}
	text = inQuotes.ReplaceAllStringFunc(text, func(quoted string) string {
		return "'" + inside(strings.Trim(quoted, "'")) + "'"
	})
	return &failure{Message: strings.TrimSpace(text)}
}

// quoting lists the ways in which Kustomize quotes what is in files, and what to say instead. A file may hold a
// plaintext Secret, and an error is shown to people who may not read it.
var quoting = []struct {
	pattern *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(`(?s)(?:literal sources \[.*\]: )?invalid literal source .*, expected key=value`), "a literal is not key=value"},
	{regexp.MustCompile(`(?s)line \[[0-9 ]*\] has invalid utf8 bytes : .*`), "a line is not UTF-8"},
	{regexp.MustCompile("(?s) with config: `.*`: "), ": "},
	{regexp.MustCompile(`(?s)must specify one of patch and path in.*`), "a patch is empty"},
	{regexp.MustCompile(`(?s)must specify a target for JSON patch \[.*\]`), "a JSON patch has no target"},
	{regexp.MustCompile(`(?s)illegally qualifies as both an SM and JSON patch: \[.*\]`), "a patch is both a strategic merge patch and a JSON patch"},
	{regexp.MustCompile(`(?s)Multiple Strategic-Merge Patches in one .*`), "a patch with a target has several documents"},
	{regexp.MustCompile(`(?s)(missing metadata\.name) in object \{.*`), "$1"},
	{regexp.MustCompile(`(?s)unable to parse SM or JSON patch from \[.*\]`), "a patch is neither a strategic merge patch nor a JSON patch"},
	{regexp.MustCompile(`(?s)nodes unequal:.*`), "it changes an object"},
	{regexp.MustCompile(`(?s):? node contents:.*`), ""},
	{regexp.MustCompile(`(?s):? value: \{.*`), ""},
	{regexp.MustCompile("(?s)`.*`"), "`…`"},
	{regexp.MustCompile(`(?s)strconv\.(\w+): parsing ".*"`), "strconv.$1"},
}

// withoutValues removes from an error of Kustomize the content of files that the error quotes.
func withoutValues(text string) string {
	for _, quoted := range quoting {
		text = quoted.pattern.ReplaceAllString(text, quoted.instead)
	}
	return text
}

// namedByID returns kind and name of the object with an ID in Kustomize's form.
func namedByID(id string) string {
	found := objectID.FindStringSubmatch(id)
	switch {
	case found == nil:
		return id
	case found[3] == "[noNs]":
		return found[1] + " " + found[2]
	}
	return found[1] + " " + found[3] + "/" + found[2]
}

// inside makes a path relative to the repository's root, as people write it.
func inside(path string) string {
	path = strings.TrimPrefix(path, "/")
	if path == "" {
		return "."
	}
	return path
}

func place(file string, line int) string {
	if line == 0 {
		return inside(file)
	}
	return fmt.Sprintf("%s:%d", inside(file), line)
}
