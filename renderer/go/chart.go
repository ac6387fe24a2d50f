package main

import (
	"bytes"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/loader/archive"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/ignore"
)

const (
	// The most bytes that all archives of a chart together may contain, unpacked.
	mostUnpacked = 32 << 20
	// How deep folders may be nested. Without a limit, a symbolic link back to a parent folder would never end.
	deepestFolder = 64
	// How deep charts may be nested in charts.
	deepestChart = 16
)

var utf8BOM = []byte{0xEF, 0xBB, 0xBF}

// chartSource reads the files of a chart, and of the charts in its charts/ folder.
type chartSource struct {
	files *repository
	// origins maps each file of a chart to its path in the repository.
	origins map[*common.File]string
	// templates maps Helm's name of each template (chart/templates/web.yaml) to its path in the repository.
	templates map[string]string
	// unpacked is the number of bytes unpacked from archives so far.
	unpacked int64
}

func newChartSource(files *repository) *chartSource {
	return &chartSource{files: files, origins: map[*common.File]string{}, templates: map[string]string{}}
}

// load reads a chart from its folder or archive.
func (s *chartSource) load(name string) (*chart.Chart, error) {
	top := absolute(name)
	found, err := s.files.at(top)
	if err != nil {
		return nil, err
	}
	switch {
	case !found.isAny:
		return nil, failed("the repository has no '%s'", inside(top))
	case !found.isDir:
		content, err := s.unpack(inside(top), found.file)
		if err != nil {
			return nil, err
		}
		return s.loadTop(inside(top), content)
	}
	rules, err := s.ignored(top)
	if err != nil {
		return nil, err
	}
	var content []*archive.BufferedFile
	if err := s.walk(top, "", rules, &content, 0); err != nil {
		return nil, err
	}
	return s.loadTop(strings.TrimPrefix(top, "/"), content)
}

// loadTop makes the chart that is rendered from its files, with the charts that it depends on.
func (s *chartSource) loadTop(place string, files []*archive.BufferedFile) (*chart.Chart, error) {
	made, err := s.loadFiles(place, files, 0)
	if err != nil {
		return nil, err
	}
	return made, s.addLocked(made)
}

// ignored reads the rules in .helmignore, if there is one.
func (s *chartSource) ignored(top string) (*ignore.Rules, error) {
	file := path.Join(top, ignore.HelmIgnore)
	found, err := s.files.at(file)
	if err != nil {
		return nil, err
	}
	rules := ignore.Empty()
	if found.isAny && !found.isDir {
		if rules, err = ignore.Parse(bytes.NewReader(found.file)); err != nil {
			return nil, failed("%s: %s", inside(file), err)
		}
	}
	rules.AddDefaults()
	return rules, nil
}

// walk reads the folder `below` in the chart's top folder. A name that is ignored both as a file and as a folder is not
// requested.
func (s *chartSource) walk(top, below string, rules *ignore.Rules, into *[]*archive.BufferedFile, depth int) error {
	if depth > deepestFolder {
		return failed("%s: folders are nested too deep; perhaps a symbolic link leads back to one of them", inside(path.Join(top, below)))
	}
	folder, err := s.files.at(path.Join(top, below))
	if err != nil {
		return err
	}
	for _, name := range folder.names {
		name := path.Join(below, name)
		if rules.Ignore(name, kindOfEntry(false)) && rules.Ignore(name, kindOfEntry(true)) {
			continue
		}
		found, err := s.files.at(path.Join(top, name))
		if err != nil {
			return err
		}
		switch {
		case !found.isAny || rules.Ignore(name, kindOfEntry(found.isDir)):
		case found.isDir:
			if err := s.walk(top, name, rules, into, depth+1); err != nil {
				return err
			}
		default:
			*into = append(*into, &archive.BufferedFile{Name: name, Data: bytes.TrimPrefix(found.file, utf8BOM)})
		}
	}
	return nil
}

// unpack returns the files in an archive.
func (s *chartSource) unpack(file string, content []byte) ([]*archive.BufferedFile, error) {
	// One byte more than is left of mostUnpacked, because Helm refuses an archive whose size is exactly its limit.
	archive.MaxDecompressedChartSize = mostUnpacked - s.unpacked + 1
	unpacked, err := archive.LoadArchiveFiles(bytes.NewReader(content))
	if err != nil {
		if strings.HasPrefix(err.Error(), "decompressed chart is larger") {
			return nil, failed("%s: the archives of the chart contain more than %d MiB together, which is the limit", file, mostUnpacked>>20)
		}
		return nil, failed("%s is not an archive of a chart: %s", file, err)
	}
	for _, one := range unpacked {
		s.unpacked += int64(len(one.Data))
	}
	return unpacked, nil
}

// loadFiles makes a chart from its files. `place` is the folder or the archive that they come from.
func (s *chartSource) loadFiles(place string, files []*archive.BufferedFile, depth int) (*chart.Chart, error) {
	if depth > deepestChart {
		return nil, failed("%s: charts are nested too deep", place)
	}
	own, nested := split(files)
	chartFile := path.Join(place, "Chart.yaml")
	if err := checkChartFile(chartFile, own); err != nil {
		return nil, err
	}
	made, err := loader.LoadFiles(own)
	if err != nil {
		return nil, explainedLoad(place, err, own)
	}
	for _, file := range slices.Concat(made.Templates, made.Files, made.Raw) {
		s.origins[file] = path.Join(place, file.Name)
	}
	var charts []*chart.Chart
	for _, sub := range nested {
		place := path.Join(place, "charts", sub.name)
		if sub.archive != nil {
			if sub.files, err = s.unpack(place, sub.archive); err != nil {
				return nil, err
			}
		}
		one, err := s.loadFiles(place, sub.files, depth+1)
		if err != nil {
			return nil, err
		}
		charts = append(charts, one)
	}
	slices.SortStableFunc(charts, byNameAndVersion)
	made.AddDependency(charts...)
	return made, nil
}

// nestedChart is a folder or an archive in charts/. An archive has no files before it is unpacked.
type nestedChart struct {
	name    string
	archive []byte
	files   []*archive.BufferedFile
}

// split separates a chart's own files from those of the charts in charts/, as Helm does.
func split(files []*archive.BufferedFile) (own []*archive.BufferedFile, nested []*nestedChart) {
	known := map[string]*nestedChart{}
	for _, file := range files {
		rest, isNested := strings.CutPrefix(file.Name, "charts/")
		if !isNested || path.Ext(file.Name) == ".prov" {
			own = append(own, file)
			continue
		}
		name, below, _ := strings.Cut(rest, "/")
		if strings.HasPrefix(name, "_") || strings.HasPrefix(name, ".") {
			continue
		}
		sub := known[name]
		if sub == nil {
			sub = &nestedChart{name: name}
			known[name] = sub
			nested = append(nested, sub)
		}
		switch {
		case below != "":
			sub.files = append(sub.files, &archive.BufferedFile{Name: below, ModTime: file.ModTime, Data: file.Data})
		case path.Ext(name) == ".tgz":
			sub.archive = file.Data
		}
	}
	return own, nested
}

// nameTemplates fills `templates`. It must run after aliases of charts are applied, because Helm's names contain them.
func (s *chartSource) nameTemplates(of *chart.Chart) {
	for _, template := range of.Templates {
		s.templates[path.Join(of.ChartFullPath(), template.Name)] = s.origins[template]
	}
	for _, sub := range of.Dependencies() {
		s.nameTemplates(sub)
	}
}

// chartFile returns the path of a chart's Chart.yaml.
func (s *chartSource) chartFile(of *chart.Chart) string { return s.file(of, "Chart.yaml") }

// file returns the path in the repository of a chart's file, by its name in the chart.
func (s *chartSource) file(of *chart.Chart, name string) string {
	for _, file := range of.Raw {
		if file.Name == name {
			return s.origins[file]
		}
	}
	return name
}

// kindOfEntry says whether an entry is a folder. The rules of .helmignore need nothing else.
type kindOfEntry bool

func (k kindOfEntry) IsDir() bool { return bool(k) }
func (k kindOfEntry) Mode() fs.FileMode {
	if k {
		return fs.ModeDir
	}
	return 0
}
func (kindOfEntry) Name() string       { return "" }
func (kindOfEntry) Size() int64        { return 0 }
func (kindOfEntry) ModTime() time.Time { return time.Time{} }
func (kindOfEntry) Sys() any           { return nil }
