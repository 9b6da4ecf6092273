// Renders a Helm chart the way `helm template` does, as far as our chart needs it: Go's own templates with sprig,
// include, toYaml, fail, .Values merged over the chart's, .Files. Helm itself is in no registry that the tests may use.
//
//	go run render.go CHART RELEASE NAMESPACE VALUES.yaml
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig"
	"sigs.k8s.io/yaml"
)

type files map[string][]byte

func (f files) Get(name string) string { return string(f[name]) }

func (f files) Glob(pattern string) files {
	found := files{}
	for name, text := range f {
		if hit, _ := filepath.Match(pattern, name); hit {
			found[name] = text
		}
	}
	return found
}

func (f files) AsConfig() string {
	bare := map[string]string{}
	for name, text := range f {
		bare[filepath.Base(name)] = string(text)
	}
	return toYaml(bare)
}

func toYaml(value interface{}) string {
	text, err := yaml.Marshal(value)
	check(err)
	return strings.TrimSuffix(string(text), "\n")
}

func read(path string) map[string]interface{} {
	text, err := os.ReadFile(path)
	check(err)
	value := map[string]interface{}{}
	check(yaml.Unmarshal(text, &value))
	return value
}

// merge puts `over` over `under`: tables key by key, null removes, anything else replaces. As Helm coalesces values.
func merge(under, over map[string]interface{}) map[string]interface{} {
	for key, value := range over {
		table, isTable := value.(map[string]interface{})
		below, wasTable := under[key].(map[string]interface{})
		switch {
		case value == nil:
			delete(under, key)
		case isTable && wasTable:
			under[key] = merge(below, table)
		default:
			under[key] = value
		}
	}
	return under
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	chart, release, namespace, given := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	meta := read(filepath.Join(chart, "Chart.yaml"))
	about := map[string]interface{}{}
	for key, value := range meta {
		about[strings.ToUpper(key[:1])+key[1:]] = value
	}
	extra := files{}
	check(walk(filepath.Join(chart, "files"), func(path string, text string) {
		name, _ := filepath.Rel(chart, path)
		extra[name] = []byte(text)
	}))
	context := map[string]interface{}{
		"Chart":   about,
		"Release": map[string]interface{}{"Name": release, "Namespace": namespace, "Service": "Helm"},
		"Values":  merge(read(filepath.Join(chart, "values.yaml")), read(given)),
		"Files":   extra,
	}
	all := template.New("chart").Option("missingkey=zero").Funcs(sprig.TxtFuncMap())
	all.Funcs(template.FuncMap{
		"toYaml": toYaml,
		"fail":   func(reason string) (string, error) { return "", errors.New(reason) },
		"include": func(name string, data interface{}) (string, error) {
			var out bytes.Buffer
			err := all.ExecuteTemplate(&out, name, data)
			return out.String(), err
		},
	})
	names := []string{}
	check(walk(filepath.Join(chart, "templates"), func(path string, text string) {
		_, err := all.New(filepath.Base(path)).Parse(text)
		check(err)
		names = append(names, filepath.Base(path))
	}))
	sort.Strings(names)
	for _, name := range names {
		if strings.HasPrefix(name, "_") {
			continue
		}
		var out bytes.Buffer
		check(all.ExecuteTemplate(&out, name, context))
		text := strings.ReplaceAll(out.String(), "<no value>", "")
		if name == "NOTES.txt" {
			fmt.Fprint(os.Stderr, text)
		} else if strings.TrimSpace(text) != "" {
			fmt.Printf("---\n# Source: %s\n%s\n", name, text)
		}
	}
}

// walk reads every file below a folder, through symbolic links as Helm does.
func walk(folder string, found func(path string, text string)) error {
	entries, err := os.ReadDir(folder)
	for _, entry := range entries {
		path := filepath.Join(folder, entry.Name())
		info, wrong := os.Stat(path)
		check(wrong)
		if info.IsDir() {
			check(walk(path, found))
			continue
		}
		text, wrong := os.ReadFile(path)
		check(wrong)
		found(path, string(text))
	}
	return err
}
