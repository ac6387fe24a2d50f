package main

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/kustomize/api/konfig"
	"sigs.k8s.io/kustomize/api/resource"
	"sigs.k8s.io/kustomize/kyaml/yaml"
)

// remote is the answer to a request for a remote base or chart: a folder of another repository.
type remote struct {
	// Root names that repository. What is in it is asked for as Root, "//", and the path.
	Root string `json:"root"`
	// Folder is the folder of the base, relative to the root of that repository.
	Folder string `json:"folder"`
	// URL and Ref are what Kustomize would write into annotations about origins.
	URL string `json:"url"`
	Ref string `json:"ref"`
	// Refusal says why the base cannot be used; empty if it can.
	Refusal string `json:"refusal"`
}

// newMount returns the path of a folder for the root of a repository. Nobody can guess it: so no kustomization of one repository
// leads to the files of another one with `..`.
func newMount() string { return "/.gitseal-" + rand.Text() }

// remoteLists are the fields of a kustomization whose entries may be remote folders.
var remoteLists = []string{"resources", "components", "bases", "generators", "transformers", "validators"}

var (
	// withScheme and withoutScheme find what Kustomize takes for the URL of a repository.
	withScheme    = regexp.MustCompile(`(?i)^(?:git::)?[a-z][a-z0-9+.-]*://`)
	withoutScheme = regexp.MustCompile(`(?i)^(?:git::|[a-z][a-z0-9-]*@[^/:]+[:/]|github\.com[:/])`)
)

// withRemotes replaces the remote folders in the kustomization at a path by folders that Kustomize finds in these files. A
// kustomization without remote folders, or one that cannot be parsed, is not changed.
func (r *repository) withRemotes(name string, content []byte) ([]byte, error) {
	node, err := yaml.Parse(string(content))
	if err != nil || node.YNode() == nil || node.YNode().Kind != yaml.MappingNode {
		return content, nil
	}
	changed := false
	for _, field := range remoteLists {
		list, err := node.Pipe(yaml.Lookup(field))
		if err != nil || list == nil || list.YNode().Kind != yaml.SequenceNode {
			continue
		}
		for _, entry := range list.Content() {
			value := entry
			if value.Kind == yaml.AliasNode {
				value = value.Alias
			}
			if value.Kind != yaml.ScalarNode || !r.isRemote(path.Dir(name), value.Value) {
				continue
			}
			folder, err := r.remoteFolder(frameRemote, []byte(value.Value))
			if err != nil {
				return nil, err
			}
			if folder.Refusal != "" {
				return nil, failed("%s: %s", place(r.inRepository(name), entry.Line), folder.Refusal)
			}
			relative, err := filepath.Rel(path.Dir(name), folder.Folder)
			if err != nil {
				return nil, err
			}
			*entry = *yaml.NewStringRNode(relative).YNode()
			changed = true
		}
	}
	if !changed {
		return content, nil
	}
	text, err := node.String()
	return []byte(text), err
}

// isRemote returns whether Kustomize would take an entry of a kustomization in a folder for the URL of a repository. As with
// Kustomize, a file with this name comes first.
func (r *repository) isRemote(folder, entry string) bool {
	if strings.ContainsAny(entry, "\n\r") {
		return false
	}
	if withScheme.MatchString(entry) {
		return true
	}
	if !withoutScheme.MatchString(entry) {
		return false
	}
	found, err := r.at(path.Join(folder, entry))
	return err != nil || found.isDir || !found.isAny
}

// remoteFolder asks for a remote base or chart. In the answer, Folder is a path in these files.
func (r *repository) remoteFolder(kind byte, asked []byte) (remote, error) {
	var found remote
	if err := r.conn.write(kind, asked); err != nil {
		return found, err
	}
	kind, body, err := r.conn.read()
	if err != nil {
		return found, unexpected(err)
	}
	if kind != frameFile {
		return found, fmt.Errorf("%w: kind %q", errFrame, kind)
	}
	if err := json.Unmarshal(body, &found); err != nil {
		return found, fmt.Errorf("%w: a remote base: %w", errFrame, err)
	}
	if found.Refusal != "" {
		return found, nil
	}
	if found.Root == "" {
		return found, fmt.Errorf("%w: a remote base without a root", errFrame)
	}
	mount := ""
	for at, known := range r.remotes {
		if known.Root == found.Root {
			mount = at
		}
	}
	if mount == "" {
		mount = newMount()
		r.remotes[mount] = found
	}
	found.Folder = path.Join(mount, path.Clean("/"+found.Folder))
	return found, nil
}

// remoteAt returns the remote repository that a path leads to, and the path in it.
func (r *repository) remoteAt(name string) (remote, string, bool) {
	for mount, one := range r.remotes {
		if rest, is := below(name, mount); is {
			return one, rest, true
		}
	}
	return remote{}, "", false
}

// below returns the path of name relative to folder, if it is in this folder.
func below(name, folder string) (string, bool) {
	if name == folder {
		return "", true
	}
	return strings.CutPrefix(name, folder+"/")
}

// isKustomization returns whether Kustomize would read the file at a path as a kustomization.
func isKustomization(name string) bool {
	return slices.Contains(konfig.RecognizedKustomizationFileNames(), path.Base(name))
}

// ofRemote makes of an origin in the folder that is rendered what Kustomize says of an origin in a remote repository.
// It returns whether it is one.
func (r *repository) ofRemote(folder string, origin *resource.Origin) bool {
	is := false
	for _, at := range []*string{&origin.Path, &origin.ConfiguredIn} {
		if *at == "" {
			continue
		}
		if found, rest, in := r.remoteAt(path.Join(folder, *at)); in {
			*at, origin.Repo, origin.Ref, is = rest, found.URL, found.Ref, true
		}
	}
	return is
}

// nameRemotes corrects the annotations of an object that name files of remote repositories.
func (r *repository) nameRemotes(folder string, made *resource.Resource) error {
	if len(r.remotes) == 0 {
		return nil
	}
	origin, err := made.GetOrigin()
	if err != nil {
		return err
	}
	if origin != nil && r.ofRemote(folder, origin) {
		if err := made.SetOrigin(origin); err != nil {
			return err
		}
	}
	all, err := made.GetTransformations()
	if err != nil {
		return err
	}
	changed := false
	for _, one := range all {
		changed = r.ofRemote(folder, one) || changed
	}
	if !changed {
		return nil
	}
	if err := made.ClearTransformations(); err != nil {
		return err
	}
	for _, one := range all {
		if err := made.AddTransformation(one); err != nil {
			return err
		}
	}
	return nil
}
