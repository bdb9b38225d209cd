package overlay

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/keifs/keifs/backend"
)

// A whiteout is an empty object whose key says what of the base is gone:
//
//	.kei/whiteouts/dev/docs/a.txt     the object docs/a.txt
//	.kei/whiteouts/dev/docs/          everything below docs/
//	.kei/whiteouts/dev/docs/%!        the marker docs/ alone
//
// A last component that begins with "%!" has "%!%25!" in its place, so that
// it is not taken for the third. Whiteouts stay as long as the branch has its
// base, so that what one client has seen gone never comes back.

const noName = "%!"

// whiteoutName is the key of an object's whiteout, below the branch.
func whiteoutName(rel string) string {
	dir, last := rel[:strings.LastIndexByte(rel, '/')+1], rel[strings.LastIndexByte(rel, '/')+1:]
	switch {
	case last == "":
		last = noName
	case strings.HasPrefix(last, noName):
		last = noName + "%25!" + last[len(noName):]
	}
	return dir + last
}

// whiteouts are some of a branch, complete for what they were asked for.
type whiteouts map[string]struct{}

// hides says whether an object of the base is gone.
func (w whiteouts) hides(rel string) bool {
	if len(w) == 0 {
		return false
	}
	if _, ok := w[whiteoutName(rel)]; ok {
		return true
	}
	return w.hidesBelow(rel)
}

// hidesBelow says whether everything below a directory of rel is gone, or
// below rel itself where it ends in '/'.
func (w whiteouts) hidesBelow(rel string) bool {
	for i := range len(rel) {
		if rel[i] != '/' {
			continue
		}
		if _, ok := w[rel[:i+1]]; ok {
			return true
		}
	}
	return false
}

func (l *layer) whiteoutKey(rel string) string { return whiteoutDir + l.branch + "/" + rel }

// whiteouts returns what decides on the objects whose keys begin with rel. One
// request tells all where there are not many; else those are asked for that
// matter. They must be asked for after an object was seen not to be there:
// who deletes makes the whiteout first.
func (l *layer) whiteouts(ctx context.Context, rel string) (whiteouts, error) {
	dir := l.whiteoutKey("")
	page, err := l.raw.ListPage(ctx, backend.ListOptions{Prefix: dir})
	if err != nil {
		return nil, err
	}
	w := whiteouts{}
	for _, info := range page.Objects {
		w[strings.TrimPrefix(info.Key, dir)] = struct{}{}
	}
	if page.Next == "" {
		return w, nil
	}
	for i := range len(rel) {
		if rel[i] != '/' {
			continue
		}
		there, err := backend.Exists(ctx, l.raw, l.whiteoutKey(rel[:i+1]))
		if err != nil {
			return nil, err
		}
		if there {
			w[rel[:i+1]] = struct{}{}
			return w, nil // no more is needed
		}
	}
	prefix := rel[:strings.LastIndexByte(rel, '/')+1]
	if last := rel[len(prefix):]; !strings.HasPrefix(noName, last) && !strings.HasPrefix(last, noName) {
		prefix = rel
	}
	for info, err := range backend.ListRecursive(ctx, l.raw, dir+prefix) {
		if err != nil {
			return nil, err
		}
		w[strings.TrimPrefix(info.Key, dir)] = struct{}{}
	}
	return w, nil
}

// cover makes the whiteout of an object.
func (l *layer) cover(ctx context.Context, rel string) error {
	return l.coverAs(ctx, whiteoutName(rel))
}

func (l *layer) coverAs(ctx context.Context, name string) error {
	_, err := l.raw.Put(ctx, l.whiteoutKey(name), backend.Bytes(nil), backend.PutOptions{})
	if errors.Is(err, backend.ErrBadKey) {
		err = fmt.Errorf("%w: the path is too long to be removed from a branch with a base", err)
	}
	return err
}

// visible returns what the base shows at a key where there is no object.
func (l *layer) visible(ctx context.Context, v *view, rel string) (o Object, ok bool, err error) {
	if v.base == nil {
		return Object{}, false, nil
	}
	o, ok, err = v.base.Lookup(ctx, rel)
	if err != nil || !ok || v.frozen {
		return o, ok, err
	}
	w, err := l.whiteouts(ctx, rel)
	return o, err == nil && !w.hides(rel), err
}
