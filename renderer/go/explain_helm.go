package main

import (
	"bytes"
	"path"
	"regexp"
	"strconv"
	"strings"

	"helm.sh/helm/v4/pkg/chart/loader/archive"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"sigs.k8s.io/yaml"
)

var (
	// Errors of Go's templates and of Helm: the template's name, the line, and what is wrong.
	errorAt    = regexp.MustCompile(`(?s)^(?:parse|execution) error at \((.+?):(\d+)(?::\d+)?\): (.*)$`)
	errorIn    = regexp.MustCompile(`(?s)^(?:parse|execution) error in \((.+?)\): (.*)$`)
	location   = regexp.MustCompile(`^(\S.*?):(\d+)(?::\d+)?$`)
	executing  = regexp.MustCompile(`(?:^|template: )(\S[^:]*):(\d+)(?::\d+)?: executing "[^"]*" at <(.*?)>: `)
	expression = regexp.MustCompile(`^\s+executing .* at <(.*)>:$`)

	cannotLoad   = regexp.MustCompile(`(?s)^cannot load (\S+): (.*)$`)
	yamlLine     = regexp.MustCompile(`yaml: line (\d+): (.*)`)
	yamlParse    = regexp.MustCompile(`(?s)^YAML parse error on (.+?): (.*)$`)
	schemaOf     = regexp.MustCompile(`^(\S+):$`)
	notLoaded    = regexp.MustCompile(`failing loading "([^"]*)"`)
	notOfYAML    = regexp.MustCompile(`^(?:cannot unmarshal yaml document: |error converting YAML to JSON: |error unmarshaling JSON: |while decoding JSON: |json: |yaml: )+`)
	isNoTable    = regexp.MustCompile(`cannot unmarshal \S+ into Go value of type map\[string\]`)
	wrongKind    = regexp.MustCompile(`cannot unmarshal (\S+) into Go struct field \w+\.(\S+) of type (\S+)`)
	ofValidation = strings.NewReplacer("validation: ", "", "chart.metadata.", "")
)

// templateFailure is one entry of an error about several templates.
type templateFailure struct{ place, message string }

// explained turns an error of rendering the templates into a message.
func (s *chartSource) explained(err error) *failure {
	text := err.Error()
	if found := errorAt.FindStringSubmatch(text); found != nil {
		return failed("%s: %s", s.placeOf(found[1], found[2]), shortened(inOneLine(found[3])))
	}
	if found := errorIn.FindStringSubmatch(text); found != nil {
		return failed("%s: %s", s.placeOf(found[1], "0"), shortened(inOneLine(found[2])))
	}
	if chain := s.chain(text); len(chain) > 0 {
		last := chain[len(chain)-1]
		return s.failedAt(chain[0].place, last.place, last.message)
	}
	text = strings.TrimPrefix(strings.TrimPrefix(text, "rendering template failed: "), "template: ")
	if found := executing.FindAllStringSubmatchIndex(text, -1); found != nil {
		last := found[len(found)-1]
		at := func(match []int) string { return s.placeOf(text[match[2]:match[3]], text[match[4]:match[5]]) }
		return s.failedAt(at(found[0]), at(last), "{{ "+text[last[6]:last[7]]+" }}: "+inOneLine(text[last[1]:]))
	}
	return failed("the chart cannot be rendered: %s", shortened(inOneLine(text)))
}

// failedAt names the place of the failure, and the template that led to it.
func (s *chartSource) failedAt(first, last, message string) *failure {
	message = shortened(message)
	if first != last {
		message += " (needed by " + first + ")"
	}
	return failed("%s: %s", last, message)
}

// chain reads Helm's message about a failure in a template that others include. For each template, it has lines for the
// place, the expression, and what went wrong.
func (s *chartSource) chain(text string) []templateFailure {
	var chain []templateFailure
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if found := location.FindStringSubmatch(line); found != nil && s.templates[found[1]] != "" {
			chain = append(chain, templateFailure{place: s.placeOf(found[1], found[2])})
			continue
		}
		if len(chain) == 0 {
			return nil
		}
		last := &chain[len(chain)-1]
		if found := expression.FindStringSubmatch(line); found != nil {
			last.message = "{{ " + found[1] + " }}:"
			continue
		}
		last.message = strings.TrimSpace(last.message + " " + strings.TrimSpace(line))
	}
	return chain
}

// placeOf returns the place in the repository, a file and a line, of a template that Helm names.
func (s *chartSource) placeOf(template, line string) string {
	file := s.templates[template]
	if file == "" {
		file = template
	}
	number, _ := strconv.Atoi(line)
	return place(file, number)
}

// explainedManifest says why the text that templates returned is not a list of objects.
func (s *chartSource) explainedManifest(err error) *failure {
	found := yamlParse.FindStringSubmatch(err.Error())
	if found == nil {
		return failed("the rendered chart cannot be read: %s", shortened(inOneLine(err.Error())))
	}
	file := s.placeOf(found[1], "0")
	if line := yamlLine.FindStringSubmatch(found[2]); line != nil {
		return failed("%s does not render to YAML: %s, in line %s of the rendered document", file, line[2], line[1])
	}
	if strings.Contains(found[2], "converting YAML") {
		return failed("%s does not render to YAML: %s", file, shortened(inOneLine(notOfYAML.ReplaceAllString(found[2], ""))))
	}
	return failed("%s does not render to a Kubernetes object: %s", file, shortened(inOneLine(notOfYAML.ReplaceAllString(found[2], ""))))
}

// explainedValues says why the values of a chart do not match its schema.
func (s *chartSource) explainedValues(err error) *failure {
	text := err.Error()
	if found := notLoaded.FindStringSubmatch(text); found != nil {
		return failed("a values.schema.json of the chart refers to '%s', but may refer only to schemas in the same file: nothing is fetched", found[1])
	}
	_, text, _ = strings.Cut(text, "\n")
	var told []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if found := schemaOf.FindStringSubmatch(line); found != nil {
			told = append(told, "chart '"+found[1]+"':")
		} else if line != "" {
			told = append(told, strings.TrimPrefix(line, "- "))
		}
	}
	return failed("the values do not match values.schema.json: %s", shortened(strings.ReplaceAll(strings.Join(told, "; "), ":; ", ": ")))
}

// checkChartFile checks a Chart.yaml before Helm reads it.
func checkChartFile(file string, files []*archive.BufferedFile) error {
	for _, one := range files {
		if one.Name != "Chart.yaml" {
			continue
		}
		var found struct {
			APIVersion string `json:"apiVersion"`
		}
		if err := yaml.Unmarshal(one.Data, &found); err != nil {
			return notYAML(inside(file), one.Data, err)
		}
		switch found.APIVersion {
		case "", chart.APIVersionV1, chart.APIVersionV2:
			return nil
		}
		return failed("%s: Helm does not install charts of the apiVersion '%s'", inside(file), found.APIVersion)
	}
	return failed("'%s' is not a chart: it has no Chart.yaml", inside(path.Dir(file)))
}

// explainedLoad says why the files in a folder or an archive are not a chart.
func explainedLoad(from string, err error, files []*archive.BufferedFile) *failure {
	text := err.Error()
	if found := cannotLoad.FindStringSubmatch(text); found != nil {
		for _, file := range files {
			if file.Name == found[1] {
				return notYAML(path.Join(from, file.Name), file.Data, err)
			}
		}
	}
	return failed("%s: %s", path.Join(from, "Chart.yaml"), shortened(inOneLine(ofValidation.Replace(text))))
}

// notYAML says why a file, or a text from the request, is not the expected YAML.
func notYAML(name string, content []byte, err error) *failure {
	text := err.Error()
	if found := yamlLine.FindStringSubmatch(text); found != nil {
		line, _ := strconv.Atoi(found[1])
		return failed("%s is not YAML: %s", place(name, line+before(content)), found[2])
	}
	if isNoTable.MatchString(text) {
		return failed("%s must be a table of names and values", name)
	}
	if found := wrongKind.FindStringSubmatch(text); found != nil {
		return failed("%s: '%s' cannot be a %s", name, found[2], found[1])
	}
	if found := cannotLoad.FindStringSubmatch(text); found != nil {
		text = found[2]
	}
	return failed("%s is not YAML: %s", name, shortened(inOneLine(notOfYAML.ReplaceAllString(text, ""))))
}

// before returns the number of lines before the first document that is not YAML: the library counts lines from the start of
// the document.
func before(content []byte) int {
	lines := bytes.SplitAfter(content, []byte("\n"))
	start := 0
	for at, line := range lines {
		if string(bytes.TrimRight(line, " \t\r\n")) != "---" {
			continue
		}
		if yaml.Unmarshal(bytes.Join(lines[start:at], nil), new(any)) != nil {
			break
		}
		start = at + 1
	}
	return start
}
