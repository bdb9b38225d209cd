package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// byteSize is a number of bytes, written as 10GiB, 500MB or 4096.
type byteSize int64

var sizeUnits = []struct {
	suffix string
	bytes  int64
}{
	{"kib", 1 << 10}, {"mib", 1 << 20}, {"gib", 1 << 30}, {"tib", 1 << 40},
	{"kb", 1e3}, {"mb", 1e6}, {"gb", 1e9}, {"tb", 1e12},
	{"k", 1 << 10}, {"m", 1 << 20}, {"g", 1 << 30}, {"t", 1 << 40},
	{"b", 1},
}

func (s *byteSize) Set(text string) error {
	number, unit := strings.ToLower(strings.TrimSpace(text)), int64(1)
	for _, u := range sizeUnits {
		if n, ok := strings.CutSuffix(number, u.suffix); ok {
			number, unit = strings.TrimSpace(n), u.bytes
			break
		}
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || !(n >= 0 && n*float64(unit) < math.MaxInt64) {
		return fmt.Errorf("%q is not a size such as 10GiB", text)
	}
	*s = byteSize(n * float64(unit))
	return nil
}

func (s *byteSize) String() string { return formatSize(int64(*s)) }
func (s *byteSize) Type() string   { return "size" }

// formatSize is the shortest of 10GiB, 1.5MiB, 17B.
func formatSize(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	return strconv.FormatFloat(math.Round(f*10)/10, 'f', -1, 64) + units[i]
}

// lifetime is a duration, or "unlimited".
type lifetime time.Duration

const unlimited = lifetime(math.MaxInt64)

func (l *lifetime) Set(text string) error {
	if text == "unlimited" {
		*l = unlimited
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return fmt.Errorf("%q is not a time such as 10s, or unlimited", text)
	}
	*l = lifetime(d)
	return nil
}

func (l *lifetime) String() string {
	if *l == unlimited {
		return "unlimited"
	}
	return time.Duration(*l).String()
}

func (l *lifetime) Type() string { return "duration" }

// octal is a file mode mask, written as 022.
type octal uint32

func (o *octal) Set(text string) error {
	n, err := strconv.ParseUint(text, 8, 32)
	if err != nil || n > 0o777 {
		return fmt.Errorf("%q is not an octal mask such as 022", text)
	}
	*o = octal(n)
	return nil
}

func (o *octal) String() string { return fmt.Sprintf("%03o", uint32(*o)) }
func (o *octal) Type() string   { return "mask" }

// ident is a user or group id; unset, it is that of the process.
type ident struct {
	id  uint32
	set bool
}

func (i *ident) Set(text string) error {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return fmt.Errorf("%q is not a numeric id", text)
	}
	*i = ident{uint32(n), true}
	return nil
}

func (i *ident) String() string {
	if !i.set {
		return ""
	}
	return strconv.FormatUint(uint64(i.id), 10)
}

func (i *ident) Type() string { return "id" }

// or is the id, or another where none is set.
func (i ident) or(id int) uint32 {
	if i.set {
		return i.id
	}
	return uint32(id)
}

// choice is one of a few words.
type choice struct {
	value string
	words []string
}

func oneOf(words ...string) choice { return choice{words[0], words} }

func (c *choice) Set(text string) error {
	if !slices.Contains(c.words, text) {
		return fmt.Errorf("%q is none of %s", text, strings.Join(c.words, ", "))
	}
	c.value = text
	return nil
}

func (c *choice) String() string { return c.value }
func (c *choice) Type() string   { return strings.Join(c.words, "|") }
