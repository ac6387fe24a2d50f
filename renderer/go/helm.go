package main

import (
	"cmp"
	"fmt"
	"path"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	release "helm.sh/helm/v4/pkg/release/v1"
	releaseutil "helm.sh/helm/v4/pkg/release/v1/util"
)

// helmChart is the request to render a chart as `helm template` does.
type helmChart struct {
	// Path is the chart's folder or archive, relative to the repository's root.
	Path        string `json:"path"`
	ReleaseName string `json:"releaseName"`
	Namespace   string `json:"namespace"`
	// KubeVersion is .Capabilities.KubeVersion. If it is empty, templates see the version that Helm was built for.
	KubeVersion string `json:"kubeVersion"`
	// APIVersions are added to the built-in versions in .Capabilities.APIVersions. If OnlyAPIVersions is set, the built-in
	// versions are left out.
	APIVersions     []string `json:"apiVersions"`
	OnlyAPIVersions bool     `json:"onlyApiVersions"`
	// Values replace those of the chart, and later ones replace earlier ones.
	Values      []givenValues `json:"values"`
	IncludeCRDs bool          `json:"includeCrds"`
	IsUpgrade   bool          `json:"isUpgrade"`
	// Lookup has the answers to lookups, and all others are refused. Without this field, every lookup finds nothing, as in
	// `helm template`.
	Lookup *[]string `json:"lookup"`
}

// hook says when a hook runs, and when it is deleted.
type hook struct {
	Events         []string `json:"events"`
	Weight         int      `json:"weight"`
	DeletePolicies []string `json:"deletePolicies,omitempty"`
}

// notesFile is a template whose text is for people; it is not an object.
const notesFile = "NOTES.txt"

// build renders a chart and collects the warnings.
func (h helmChart) build(files *repository) (result, error) {
	warnings := collectWarnings()
	made, err := h.render(files)
	made.Warnings = warnings()
	if files.broken != nil {
		return result{}, files.broken
	}
	files.nameRemoteCharts(&made)
	if failed, is := err.(*failure); is {
		failed.Message = files.asInRepository(failed.Message)
	}
	return made, err
}

func (h helmChart) render(files *repository) (result, error) {
	if err := chartutil.ValidateReleaseName(h.ReleaseName); err != nil {
		return result{}, failed("the release name '%s' is not valid: use at most 53 characters out of a-z, 0-9, '-' and '.', and a letter or digit at the beginning and at the end", h.ReleaseName)
	}
	capabilities, err := h.capabilities()
	if err != nil {
		return result{}, err
	}
	values, err := merged(h.Values, files)
	if err != nil {
		return result{}, err
	}
	source := newChartSource(files)
	loaded, err := source.load(h.Path)
	if err != nil {
		return result{}, err
	}
	if err := installable(loaded, source); err != nil {
		return result{}, err
	}
	if err := chartutil.ProcessDependencies(loaded, values); err != nil {
		return result{}, failed("the dependencies of %s cannot be processed: %s", source.chartFile(loaded), inOneLine(err.Error()))
	}
	source.nameTemplates(loaded)
	options := common.ReleaseOptions{
		Name: h.ReleaseName, Namespace: h.Namespace, Revision: 1, IsInstall: !h.IsUpgrade, IsUpgrade: h.IsUpgrade,
	}
	scope, err := util.ToRenderValuesWithSchemaValidation(loaded, values, options, capabilities, false)
	if err != nil {
		return result{}, source.explainedValues(err)
	}
	if wanted := loaded.Metadata.KubeVersion; wanted != "" && !chartutil.IsCompatibleRange(wanted, capabilities.KubeVersion.String()) {
		return result{}, failed("%s requires Kubernetes '%s', but the chart is rendered for Kubernetes %s", source.chartFile(loaded), wanted, capabilities.KubeVersion.Version)
	}
	var calls calls
	if h.Lookup != nil {
		if calls.answers, err = answersOf(*h.Lookup); err != nil {
			return result{}, err
		}
	}
	rendered, err := calls.render(loaded, scope)
	if h.Lookup != nil && len(calls.lookups) > 0 {
		// An error of a template may have its cause in a lookup that found nothing.
		return result{}, source.refused(calls, loaded, scope)
	}
	if err != nil {
		return result{}, source.explained(err)
	}
	made := result{Lookups: calls.lookups, Nondeterministic: calls.names()}
	for name, text := range rendered {
		if strings.HasSuffix(name, notesFile) {
			if name == path.Join(loaded.Name(), "templates", notesFile) {
				made.Notes = text
			}
			delete(rendered, name)
		}
	}
	hooks, manifests, err := releaseutil.SortManifests(rendered, nil, releaseutil.InstallOrder)
	if err != nil {
		return result{}, source.explainedManifest(err)
	}
	if h.IncludeCRDs {
		for _, crd := range loaded.CRDObjects() {
			made.Objects = append(made.Objects, object{
				Origin: source.origins[crd.File], Source: crd.Filename, YAML: string(crd.File.Data), CRD: true,
			})
		}
	}
	for _, manifest := range manifests {
		made.Objects = append(made.Objects, object{
			Origin: source.templates[manifest.Name], Source: manifest.Name, YAML: manifest.Content,
		})
	}
	for _, one := range hooks {
		made.Objects = append(made.Objects, object{
			Origin: source.templates[one.Path], Source: one.Path, YAML: one.Manifest, Hook: hookOf(one),
		})
	}
	return made, nil
}

func (h helmChart) capabilities() (*common.Capabilities, error) {
	known := common.DefaultCapabilities.Copy()
	if h.KubeVersion != "" {
		version, err := common.ParseKubeVersion(h.KubeVersion)
		if err != nil {
			return nil, failed("'%s' is not a version of Kubernetes", h.KubeVersion)
		}
		known.KubeVersion = *version
	}
	if h.OnlyAPIVersions {
		known.APIVersions = nil
	}
	known.APIVersions = append(known.APIVersions[:len(known.APIVersions):len(known.APIVersions)], h.APIVersions...)
	return known, nil
}

// installable refuses library charts, and charts whose dependencies are missing in charts/.
func installable(loaded *chart.Chart, source *chartSource) error {
	file := source.chartFile(loaded)
	if kind := loaded.Metadata.Type; kind != "" && kind != "application" {
		return failed("%s: a chart of the type '%s' has no objects of its own; use it as a dependency of another chart", file, kind)
	}
	var missing []string
	for _, wanted := range missingCharts(loaded) {
		missing = append(missing, fmt.Sprintf("'%s'", wanted.Name))
	}
	if len(missing) > 0 {
		return failed("%s depends on %s, which is missing in charts/, and there is no Chart.lock: run `helm dependency update`, and commit charts/ or Chart.lock", file, strings.Join(missing, ", "))
	}
	return nil
}

func hookOf(one *release.Hook) *hook {
	made := hook{Weight: one.Weight}
	for _, event := range one.Events {
		made.Events = append(made.Events, event.String())
	}
	for _, policy := range one.DeletePolicies {
		made.DeletePolicies = append(made.DeletePolicies, string(policy))
	}
	return &made
}

// byNameAndVersion compares charts, so that the result does not depend on the order of a map.
func byNameAndVersion(a, b *chart.Chart) int {
	return cmp.Or(cmp.Compare(a.Name(), b.Name()), cmp.Compare(a.Metadata.Version, b.Metadata.Version))
}
