package s3

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// xmlScanner reads the XML that S3 servers write: elements, text, references;
// of attributes, comments and instructions it only finds the end. Its errors
// are of documents that are cut or no XML. The strings that it returns are
// parts of the document, and keep it in memory.
type xmlScanner struct {
	rest string // of the document
	// An element that was opened as <a/> has its end still to come.
	closed bool
}

var errXML = errors.New("malformed XML")

// open goes to the next tag and into its element. At the end of the element
// around it, ok is false.
func (x *xmlScanner) open() (name string, ok bool, err error) {
	if x.closed {
		x.closed = false
		return "", false, nil
	}
	for {
		if _, err := x.until("<"); err != nil {
			return "", false, err
		}
		switch {
		case strings.HasPrefix(x.rest, "!--"):
			_, err = x.until("-->")
		case strings.HasPrefix(x.rest, "?"):
			_, err = x.until("?>")
		default:
			return x.tag()
		}
		if err != nil {
			return "", false, err
		}
	}
}

// tag reads a tag behind its "<".
func (x *xmlScanner) tag() (name string, ok bool, err error) {
	name, err = x.until(">")
	if err != nil {
		return "", false, err
	}
	if strings.HasPrefix(name, "/") {
		return "", false, nil
	}
	name, x.closed = strings.CutSuffix(name, "/")
	if i := strings.IndexByte(name, ' '); i >= 0 {
		name = name[:i] // without the attributes
	}
	name = strings.TrimSpace(name[strings.IndexByte(name, ':')+1:])
	if name == "" || name[0] == '!' {
		return "", false, errXML
	}
	return name, true, nil
}

// until returns what comes before end, and goes behind that.
func (x *xmlScanner) until(end string) (string, error) {
	before, after, found := strings.Cut(x.rest, end)
	if !found {
		return "", fmt.Errorf("%w: it ends early", errXML)
	}
	x.rest = after
	return before, nil
}

// children calls visit in each element of the present one; visit must leave it
// by children, text or skip.
func (x *xmlScanner) children(visit func(name string) error) error {
	for {
		name, ok, err := x.open()
		if err != nil || !ok {
			return err
		}
		if err := visit(name); err != nil {
			return err
		}
	}
}

// skip leaves the present element. It does not recurse: the depth is the server's choice.
func (x *xmlScanner) skip() error {
	for depth := 1; depth > 0; {
		_, ok, err := x.open()
		if err != nil {
			return err
		}
		if depth++; !ok {
			depth -= 2
		}
	}
	return nil
}

// text returns the text of the present element, which has no children.
func (x *xmlScanner) text() (string, error) {
	if x.closed {
		x.closed = false
		return "", nil
	}
	s, err := x.until("<")
	if err != nil {
		return "", err
	}
	tag, err := x.until(">")
	if err != nil {
		return "", err
	}
	if !strings.HasPrefix(tag, "/") {
		return "", fmt.Errorf("%w: <%s> in a text", errXML, tag)
	}
	if strings.IndexByte(s, '&') < 0 {
		return s, nil
	}
	return unescape(s)
}

func unescape(s string) (string, error) {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(s, "&")
		out.WriteString(before)
		if !found {
			return out.String(), nil
		}
		ref, after, found := strings.Cut(rest, ";")
		if !found {
			return "", fmt.Errorf("%w: &%.10s", errXML, rest)
		}
		switch ref {
		case "amp":
			out.WriteByte('&')
		case "lt":
			out.WriteByte('<')
		case "gt":
			out.WriteByte('>')
		case "quot":
			out.WriteByte('"')
		case "apos":
			out.WriteByte('\'')
		default:
			digits, ok := strings.CutPrefix(ref, "#")
			base := 10
			if hex, isHex := strings.CutPrefix(digits, "x"); isHex {
				digits, base = hex, 16
			}
			c, err := strconv.ParseUint(digits, base, 21)
			if !ok || err != nil {
				return "", fmt.Errorf("%w: &%s;", errXML, ref)
			}
			out.WriteRune(rune(c))
		}
		s = after
	}
}

// notXML says that XML 1.0 cannot carry a character.
func notXML(c rune) bool {
	return c < ' ' && c != '\t' && c != '\n' && c != '\r' || c == 0xFFFE || c == 0xFFFF
}
