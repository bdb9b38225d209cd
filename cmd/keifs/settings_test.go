package main

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// layered resolves settings from the layers given and returns one option.
func layered(t *testing.T, option string, flags []string, o string, env map[string]string, file string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", dir)
	if file != "" {
		writeFile(t, filepath.Join(dir, "keifs", "config.toml"), file)
	}
	s := newSettings(newShared())
	if err := s.flags.Parse(flags); err != nil {
		t.Fatal(err)
	}
	opts, err := s.parseMountOptions([]string{o})
	if err != nil {
		return "", err
	}
	err = s.resolve("s3://bucket/some/prefix", opts.values, func(name string) string { return env[name] })
	return s.flags.Lookup(option).Value.String(), err
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestOptionPrecedence(t *testing.T) {
	flags := []string{"--cache-size=1GiB"}
	o := "cache_size=2GiB"
	env := map[string]string{"KEIFS_CACHE_SIZE": "3GiB"}
	section := "[store.\"s3://bucket/some\"]\ncache-size = \"4GiB\"\n"
	top := "cache-size = \"5GiB\"\n"
	for _, c := range []struct {
		name  string
		flags []string
		o     string
		env   map[string]string
		file  string
		want  string
	}{
		{"flag over all", flags, o, env, top + section, "1GiB"},
		{"-o over environment", nil, o, env, top + section, "2GiB"},
		{"environment over file", nil, "", env, top + section, "3GiB"},
		{"section over top level", nil, "", nil, top + section, "4GiB"},
		{"top level over default", nil, "", nil, top, "5GiB"},
		{"longest section", nil, "", nil, "[store.\"s3://bucket\"]\ncache-size = \"6GiB\"\n" + section, "4GiB"},
		{"section of another store", nil, "", nil, "[store.\"s3://bucket/so\"]\ncache-size = \"6GiB\"\n", "10GiB"},
		{"default", nil, "", nil, "", "10GiB"},
		{"a number in the file", nil, "", nil, "cache-size = 1048576\n", "1MiB"},
		{"an empty variable is unset", nil, "", map[string]string{"KEIFS_CACHE_SIZE": ""}, "", "10GiB"},
		{"--config", nil, "", map[string]string{"KEIFS_CONFIG": filepath.Join(t.TempDir(), "other.toml")}, top, "7GiB"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if path := c.env["KEIFS_CONFIG"]; path != "" {
				writeFile(t, path, "cache-size = \"7GiB\"\n")
			}
			got, err := layered(t, "cache-size", c.flags, c.o, c.env, c.file)
			if err != nil || got != c.want {
				t.Fatalf("cache-size is %s, %v; want %s", got, err, c.want)
			}
		})
	}
}

// TestEveryOptionFromEveryLayer: no option is known to one layer and not to another.
func TestEveryOptionFromEveryLayer(t *testing.T) {
	samples := map[string]string{
		"bool": "true", "duration": "5m0s", "size": "3MiB", "mask": "027", "id": "1234",
		"auto|list|head": "list", "keep-both|fail|overwrite": "fail", "on|off": "off", "AES256|aws:kms|aws:kms:dsse": "aws:kms", "info|debug|warn|error": "debug", "string": "text",
	}
	newSettings(newShared()).flags.VisitAll(func(f *pflag.Flag) {
		if f.Name == "config" {
			return
		}
		want, ok := samples[f.Value.Type()]
		if !ok {
			t.Fatalf("--%s: no sample of type %s", f.Name, f.Value.Type())
		}
		for layer, give := range map[string]func() (string, error){
			"flag": func() (string, error) {
				return layered(t, f.Name, []string{"--" + f.Name + "=" + want}, "", nil, "")
			},
			"-o": func() (string, error) {
				return layered(t, f.Name, nil, strings.ReplaceAll(f.Name, "-", "_")+"="+want, nil, "")
			},
			"environment": func() (string, error) {
				return layered(t, f.Name, nil, "", map[string]string{environmentName(f.Name): want}, "")
			},
			"file": func() (string, error) {
				return layered(t, f.Name, nil, "", nil, f.Name+" = \""+want+"\"\n")
			},
		} {
			if got, err := give(); err != nil || got != want {
				t.Errorf("--%s from %s: %q, %v; want %q", f.Name, layer, got, err, want)
			}
		}
	})
}

func TestWrongOptionsAreNamed(t *testing.T) {
	for _, c := range []struct{ o, env, file, want string }{
		{o: "cach_size=1", want: "unknown option -o cach_size"},
		{o: "endpoint", want: "-o endpoint needs a value"},
		{o: "cache_size=huge", want: `-o cache-size: "huge" is not a size`},
		{env: "huge", want: `KEIFS_CACHE_SIZE: "huge" is not a size`},
		{file: "cach-size = 1\n", want: `config.toml: unknown key "cach-size"`},
		{file: "[store.\"s3://elsewhere\"]\nuuid = 1\n", want: `config.toml: unknown key "uuid"`},
		{file: "config = \"x\"\n", want: `config.toml: unknown key "config"`},
		{file: "cache-size = \"huge\"\n", want: `configuration: cache-size: "huge" is not a size`},
		{file: "cache-size = [1]\n", want: "is no value for an option"},
		{file: "store = 1\n", want: "store is a section"},
		{file: "no toml\n", want: "config.toml: toml"},
	} {
		_, err := layered(t, "cache-size", nil, c.o, map[string]string{"KEIFS_CACHE_SIZE": c.env}, c.file)
		if err == nil || !strings.Contains(oneLine(err), c.want) || exitStatus(err) != exitUsage {
			t.Errorf("%+v: %v (status %d)", c, err, exitStatus(err))
		}
	}
}

func TestMountOptions(t *testing.T) {
	for _, c := range []struct {
		o     string
		want  map[string]string
		flags []string
	}{
		{"rw,atime,user,auto,_netdev,nofail,x-systemd.automount,comment=x,defaults", map[string]string{}, nil},
		{"ro", map[string]string{"read-only": "true"}, nil},
		{"ro,rw", map[string]string{}, nil},
		{"dev,nosuid,noexec,noatime", map[string]string{}, []string{"dev", "nosuid", "noexec", "noatime"}},
		{"allow_other,uid=1000,endpoint=http://[::1]:9000/?a=b", map[string]string{
			"allow-other": "true", "uid": "1000", "endpoint": "http://[::1]:9000/?a=b"}, nil},
		{" metadata-ttl=5s, ", map[string]string{"metadata-ttl": "5s"}, nil},
	} {
		got, err := newSettings(newShared()).parseMountOptions([]string{c.o})
		if err != nil || !maps.Equal(got.values, c.want) || !slices.Equal(got.flags, c.flags) {
			t.Errorf("-o %s: %v, %v", c.o, got, err)
		}
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "17": 17, "17B": 17, "1k": 1 << 10, "1KB": 1000, "1.5MiB": 3 << 19, "10GiB": 10 << 30, "2 TB": 2e12,
	} {
		var s byteSize
		if err := s.Set(text); err != nil || int64(s) != want {
			t.Errorf("%s: %d, %v; want %d", text, int64(s), err, want)
		}
	}
	for _, text := range []string{"", "GiB", "-1", "1e30", "NaN", "1XB", "1 0"} {
		if err := new(byteSize).Set(text); err == nil {
			t.Errorf("%q is taken for a size", text)
		}
	}
}

func TestFstabForm(t *testing.T) {
	root := newRoot(newShared())
	for _, c := range []struct{ in, want string }{
		{"s3://b /mnt -o rw,allow_other", "mount s3://b /mnt -o rw,allow_other"},
		{"/data /mnt -o rw", "mount /data /mnt -o rw"},
		{"mount /mnt", "mount /mnt"},
		{"branch new", "branch new"},
		{"completion bash", "completion bash"},
		{"--help", "--help"},
		{"branhc new", "branhc"},
		{"mont s3://b /mnt -o ro", "mont"},
		{"bucket /mnt -o ro", "mount bucket /mnt -o ro"},
	} {
		if got := strings.Join(asMount(root, strings.Fields(c.in)), " "); got != c.want {
			t.Errorf("%s: %s", c.in, got)
		}
	}
}

func TestLikelyMistakesInURLs(t *testing.T) {
	for url, want := range map[string]string{
		"s3:/bucket":               "did you mean s3://bucket?",
		"s3:bucket/p":              "did you mean s3://bucket/p?",
		"file:dir":                 "did you mean file:///dir?",
		"bucket":                   "neither a command nor a store",
		"s3://ID:hush@bucket":      "credentials do not belong in the URL",
		"s3://bucket/at@home":      "",
		"/data":                    "",
		"s3://bucket":              "",
		"file:///dir/with@strange": "",
	} {
		err := checkURL(url)
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", url, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %q", url, err, want)
		case err != nil && strings.Contains(err.Error(), "hush"):
			t.Errorf("the error repeats a secret: %v", err)
		}
	}
}

// TestREADMEHasEveryOption: the table in README.md is the flag set: same
// options, same order, same defaults, same words.
func TestREADMEHasEveryOption(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `--([a-z-]+)` \\| (.*?) \\| (.*) \\|$")
	var got []string
	for _, m := range row.FindAllStringSubmatch(string(readme), -1) {
		got = append(got, strings.Join(m[1:], " | "))
	}
	var want []string
	newSettings(newShared()).flags.VisitAll(func(f *pflag.Flag) {
		_, usage := pflag.UnquoteUsage(f)
		def := ""
		if f.DefValue != "" && f.DefValue != "false" {
			def = "`" + f.DefValue + "`"
		}
		want = append(want, strings.Join([]string{f.Name, def, usage}, " | "))
	})
	if !slices.Equal(got, want) {
		t.Errorf("the option table of README.md should be:\n%s", strings.Join(func() (rows []string) {
			for _, w := range want {
				rows = append(rows, "| `--"+strings.Replace(w, " | ", "` | ", 1)+" |")
			}
			return rows
		}(), "\n"))
	}
}
