package main

import (
	"path/filepath"
	"strings"

	"github.com/keifs/keifs/backend/all"
)

// checkURL refuses the likely mistakes in a store's URL, with a hint; the rest
// of it is for all.Open.
func checkURL(url string) error {
	scheme, rest, ok := strings.Cut(url, ":")
	host, _, _ := strings.Cut(strings.TrimPrefix(rest, "//"), "/")
	switch {
	case strings.Contains(host, "@"):
		return usageError("credentials do not belong in the URL of a store: put them into the environment, or the configuration of the store's own tools")
	case !ok && !filepath.IsAbs(url):
		return usageError("%q is neither a command nor a store: %s", url, all.Schemes)
	case strings.Contains(" "+all.Schemes, " "+scheme+"://") && !strings.HasPrefix(rest, "//"):
		want := scheme + "://" + strings.TrimLeft(rest, "/")
		if scheme == "file" {
			want = "file:///" + strings.TrimLeft(rest, "/")
		}
		return usageError("%q is not a store's URL: did you mean %s?", url, want)
	}
	return nil
}

// storeForms are the forms of a store's URL, a line each, for help texts.
func storeForms() string { return "  " + strings.ReplaceAll(all.Schemes, ", ", "\n  ") }

// filePath is the folder of a file store; empty for another.
func filePath(url string) string {
	if path, ok := strings.CutPrefix(url, "file://"); ok {
		return path
	}
	if filepath.IsAbs(url) {
		return url
	}
	return ""
}

// source is what the mount table shows: the URL as it was given.
func (m *mounting) source() string {
	if filepath.IsAbs(m.url) {
		return "file://" + m.url
	}
	return m.url
}
