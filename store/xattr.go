package store

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// formatXattrs writes extended attributes as s3fs does. Its parser knows no
// escapes and splits at every comma, which our own names only have where the
// user put them.
func formatXattrs(xattrs map[string][]byte) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, name := range slices.Sorted(maps.Keys(xattrs)) {
		if i > 0 {
			b.WriteByte(',')
		}
		quoted, err := json.Marshal(name)
		if err != nil { // a string can always be marshalled
			continue
		}
		b.Write(quoted)
		b.WriteString(`:"` + base64.StdEncoding.EncodeToString(xattrs[name]) + `"`)
	}
	b.WriteByte('}')
	// s3fs does not take '+' for a space.
	return strings.ReplaceAll(url.QueryEscape(b.String()), "+", "%20")
}

// parseXattrs reads what formatXattrs and s3fs write; nil for anything else.
// An attribute that is not in base64 is ignored.
func parseXattrs(s string) map[string][]byte {
	if s == "" {
		return nil
	}
	text, err := url.PathUnescape(s)
	if err != nil {
		return nil
	}
	var pairs map[string]string
	if json.Unmarshal([]byte(text), &pairs) != nil {
		return nil
	}
	xattrs := map[string][]byte{}
	for name, value := range pairs {
		data, err := base64.StdEncoding.DecodeString(value)
		if err == nil && name != "" && len(name) <= maxXattrName && !strings.Contains(name, "\x00") {
			xattrs[name] = data
		}
	}
	if len(xattrs) == 0 {
		return nil
	}
	return xattrs
}

// linkTarget is the target of a symbolic link that another tool keeps in
// metadata.
func linkTarget(metadata map[string]string) (target string, ok bool) {
	if target, ok = metadata[gcsfuseTarget]; ok {
		return target, true
	}
	if target, ok = metadata[geesefsTarget]; ok {
		if plain, err := url.PathUnescape(target); err == nil {
			target = plain
		}
		return target, true
	}
	return "", false
}
