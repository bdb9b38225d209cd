package main

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/spf13/pflag"
)

// resolve completes the settings for a store: what no flag has set comes from
// the -o options, else the environment, else the configuration file, else it
// stays the default. getenv is os.Getenv; an empty variable is unset.
func (s *settings) resolve(store string, mountOptions map[string]string, getenv func(string) string) error {
	// The file's own name first: the rest of it follows from the file.
	if err := s.layer(s.flags.Lookup("config"), mountOptions, getenv, nil); err != nil {
		return err
	}
	path, needed := s.config, true
	if path == "" {
		path, needed = filepath.Join(configHome(), "keifs", "config.toml"), false
	}
	file, err := s.readConfig(path, needed, store)
	if err != nil {
		return err
	}
	s.flags.VisitAll(func(f *pflag.Flag) {
		if err == nil {
			err = s.layer(f, mountOptions, getenv, file)
		}
	})
	return err
}

// layer sets one flag from the first layer that has it.
func (s *settings) layer(f *pflag.Flag, mountOptions map[string]string, getenv func(string) string, file map[string]string) error {
	if f.Changed {
		return nil
	}
	name := environmentName(f.Name)
	if value, ok := mountOptions[f.Name]; ok {
		return set(f, value, "-o "+f.Name)
	}
	if value := getenv(name); value != "" {
		return set(f, value, name)
	}
	if value, ok := file[f.Name]; ok {
		return set(f, value, "configuration: "+f.Name)
	}
	return nil
}

func set(f *pflag.Flag, value, origin string) error {
	if err := f.Value.Set(value); err != nil {
		return usageError("%s: %w", origin, err)
	}
	f.Changed = true
	return nil
}

// environmentName is the variable of a flag: KEIFS_CACHE_DIR for cache-dir.
func environmentName(flag string) string {
	return "KEIFS_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// readConfig returns the values that a configuration file has for a store:
// its top level, and over it the section of the longest URL that the store is
// or lies below. Keys that are no option are errors, in other sections too.
func (s *settings) readConfig(path string, needed bool, store string) (map[string]string, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !needed {
		return nil, nil
	}
	if err != nil {
		return nil, usageError("configuration: %w", err)
	}
	var top map[string]any
	if err := toml.Unmarshal(data, &top); err != nil {
		return nil, usageError("%s: %w", path, err)
	}
	var sections map[string]any
	if v, ok := top["store"]; ok {
		if sections, ok = v.(map[string]any); !ok {
			return nil, usageError("%s: store is a section: [store.\"s3://bucket\"]", path)
		}
		delete(top, "store")
	}
	values, err := s.keys(path, top)
	if err != nil {
		return nil, err
	}
	var best string
	var over map[string]string
	for url, v := range sections {
		section, ok := v.(map[string]any)
		if !ok {
			return nil, usageError("%s: unknown key %q", path, "store."+url)
		}
		some, err := s.keys(path, section)
		if err != nil {
			return nil, err
		}
		if below(store, url) && len(url) >= len(best) {
			best, over = url, some
		}
	}
	maps.Copy(values, over)
	return values, nil
}

// keys checks one table of a configuration file and makes text of its values.
func (s *settings) keys(path string, table map[string]any) (map[string]string, error) {
	values := make(map[string]string)
	for key, v := range table {
		if s.flags.Lookup(key) == nil || key == "config" {
			return nil, usageError("%s: unknown key %q", path, key)
		}
		switch v := v.(type) {
		case string:
			values[key] = v
		case bool:
			values[key] = strconv.FormatBool(v)
		case int64:
			values[key] = strconv.FormatInt(v, 10)
		default:
			return nil, usageError("%s: %s: a %T is no value for an option", path, key, v)
		}
	}
	return values, nil
}

// below says whether a store's URL is url or lies below it.
func below(store, url string) bool {
	url = strings.TrimSuffix(url, "/")
	return store == url || strings.HasPrefix(store, url+"/")
}

// mountOptions are parsed -o lists: keifs options by flag name, and those
// generic ones that the kernel wants to know.
type mountOptions struct {
	values map[string]string
	flags  []string // nodev, noexec, noatime, … in the order given
}

// parseMountOptions reads the -o lists that mount(8) and people give.
func (s *settings) parseMountOptions(lists []string) (mountOptions, error) {
	m := mountOptions{values: map[string]string{}}
	for _, list := range lists {
		for opt := range strings.SplitSeq(list, ",") {
			name, value, given := strings.Cut(strings.TrimSpace(opt), "=")
			switch {
			case name == "":
			case name == "ro":
				m.values["read-only"] = "true"
			case name == "rw": // always there from mount(8): it only takes back an earlier ro
				delete(m.values, "read-only")
			case kernelFlag(name):
				m.flags = append(m.flags, name)
			case forOthers(name):
			default:
				f := s.flags.Lookup(strings.ReplaceAll(name, "_", "-"))
				if f == nil {
					return m, usageError("unknown option -o %s", name)
				}
				if !given {
					if f.NoOptDefVal == "" {
						return m, usageError("-o %s needs a value: -o %s=…", name, name)
					}
					value = f.NoOptDefVal
				}
				m.values[f.Name] = value
			}
		}
	}
	return m, nil
}

// kernelFlag says whether a generic option is for the kernel's side of the mount.
func kernelFlag(name string) bool {
	switch name {
	case "dev", "nodev", "suid", "nosuid", "exec", "noexec", "noatime", "nodiratime", "relatime", "strictatime":
		return true
	}
	return false
}

// forOthers says whether a generic option is for mount(8) and init, or the
// default anyway.
func forOthers(name string) bool {
	switch name {
	case "defaults", "auto", "noauto", "user", "nouser", "users", "owner", "group", "_netdev", "nofail", "comment",
		"atime", "diratime", "norelatime", "nostrictatime", "lazytime", "nolazytime", "async", "default_permissions":
		return true
	}
	return strings.HasPrefix(name, "x-") || strings.HasPrefix(name, "X-")
}
