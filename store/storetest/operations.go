package storetest

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store"
)

// The random operations of the model test: each is done to the volume and to
// the model, and fails in the one where it fails in the other.

func (m *model) create() {
	path, exclusive := m.somewhere(), m.rnd.IntN(2) == 0
	parent, n, err := m.root.find(path)
	if n != nil && n.kind == store.ModeSymlink || len(m.open) > 20 {
		return
	}
	m.logf("create %s exclusive=%v", path, exclusive)
	f, got := m.tree.Create(m.ctx, m.path(path), store.Attr{Mode: store.ModeRegular | 0o644}, exclusive)
	switch {
	case n != nil && exclusive:
		err = store.ErrExist
	case n != nil && n.kind == store.ModeDir:
		err = store.ErrIsDir
	case parent == nil && n == nil:
		m.expect(got, err)
		return
	default:
		err = nil
	}
	if !m.expect(got, errs(err)...) {
		return
	}
	if n == nil {
		n = &node{kind: store.ModeRegular, mode: 0o644}
		parent.entries[path[strings.LastIndexByte(path, '/')+1:]] = n
	}
	n.resize(0)
	m.open = append(m.open, opened{f, n, true})
}

func (m *model) openAny() {
	path, write := m.somewhere(), m.rnd.IntN(2) == 0
	truncate := write && m.rnd.IntN(4) == 0
	_, n, err := m.root.find(path)
	if n != nil && n.kind == store.ModeSymlink || len(m.open) > 20 {
		return
	}
	if n != nil && n.kind == store.ModeDir {
		err = store.ErrIsDir
	}
	m.logf("open %s write=%v truncate=%v", path, write, truncate)
	f, got := m.tree.Open(m.ctx, m.path(path), store.OpenFlags{Write: write, Truncate: truncate})
	if !m.expect(got, errs(err)...) {
		return
	}
	if truncate {
		n.resize(0)
	}
	m.open = append(m.open, opened{f, n, write})
}

// handle picks an open file, to write to or any.
func (m *model) handle(write bool) (int, opened, bool) {
	if len(m.open) == 0 {
		return 0, opened{}, false
	}
	i := m.rnd.IntN(len(m.open))
	return i, m.open[i], m.open[i].write || !write
}

func (m *model) closeAny() {
	if i, h, ok := m.handle(false); ok {
		flush := m.rnd.IntN(5) > 0
		m.logf("close handle %d flush=%v", i, flush)
		if flush {
			m.expect(h.f.Flush(m.ctx))
		}
		m.expect(h.f.Close(m.ctx))
		m.open = slices.Delete(m.open, i, i+1)
	}
}

func (m *model) writeAny() {
	if i, h, ok := m.handle(true); ok {
		off, p := m.rnd.IntN(2000), m.bytes()
		if m.rnd.IntN(3) == 0 {
			off = -1
		}
		m.logf("write handle %d: %d bytes at %d", i, len(p), off)
		_, err := h.f.WriteAt(m.ctx, []byte(p), int64(off))
		if off < 0 {
			off = len(h.n.content)
		}
		if m.expect(err) {
			h.n.write(p, off)
		}
	}
}

func (m *model) readAny() {
	if i, h, ok := m.handle(false); ok {
		off, p := m.rnd.IntN(2000), make([]byte, 1+m.rnd.IntN(500))
		m.logf("read handle %d: %d bytes at %d", i, len(p), off)
		n, err := h.f.ReadAt(m.ctx, p, int64(off))
		if n > 0 {
			m.expect(err)
		}
		content := h.n.content[min(off, len(h.n.content)):]
		equal(m.env, m.log[len(m.log)-1], string(p[:n]), string(content[:min(len(p), len(content))]))
	}
}

func (m *model) truncate() {
	size := m.rnd.IntN(1500)
	if m.rnd.IntN(4) == 0 {
		size = 0
	}
	change := store.AttrChange{Size: new(int64(size))}
	if i, h, ok := m.handle(true); ok && m.rnd.IntN(2) == 0 {
		m.logf("truncate handle %d to %d", i, size)
		_, err := h.f.SetAttr(m.ctx, change)
		if m.expect(err) {
			h.n.resize(size)
		}
		return
	}
	path := m.somewhere()
	_, n, err := m.root.find(path)
	if n != nil && n.kind == store.ModeSymlink {
		return
	}
	if n != nil && n.kind == store.ModeDir {
		err = store.ErrIsDir
	}
	m.logf("truncate %s to %d", path, size)
	_, got := m.tree.SetAttr(m.ctx, m.path(path), change)
	if m.expect(got, errs(err)...) {
		n.resize(size)
	}
}

func (m *model) punch() {
	if i, h, ok := m.handle(true); ok {
		off, n := m.rnd.IntN(1000), m.rnd.IntN(500)
		m.logf("punch handle %d: %d at %d", i, n, off)
		if m.expect(h.f.Punch(m.ctx, int64(off), int64(n))) {
			size := len(h.n.content)
			clear(h.n.content[min(off, size):min(off+n, size)])
			h.n.mtime = time.Time{}
		}
	}
}

func (m *model) flushAny() {
	if i, h, ok := m.handle(false); ok {
		m.logf("flush handle %d", i)
		m.expect(h.f.Flush(m.ctx))
	}
}

func (m *model) syncAll() {
	if m.rnd.IntN(4) == 0 {
		m.logf("sync")
		m.expect(m.vol.Sync(m.ctx))
		equal(m.env, "pending", len(m.vol.Pending()), 0)
	}
}

func (m *model) remove() {
	path := m.somewhere()
	parent, n, err := m.root.find(path)
	if n != nil && n.kind == store.ModeDir {
		err = store.ErrIsDir
	}
	m.logf("remove %s", path)
	if m.expect(m.tree.Remove(m.ctx, m.path(path)), errs(err)...) {
		delete(parent.entries, last(path))
	}
}

func (m *model) mkdir() {
	path := m.somewhere()
	parent, n, err := m.root.find(path)
	if n != nil {
		err = store.ErrExist
	} else if parent != nil {
		err = nil
	}
	m.logf("mkdir %s", path)
	_, got := m.tree.Mkdir(m.ctx, m.path(path), store.Attr{Mode: store.ModeDir | 0o755})
	if m.expect(got, errs(err)...) {
		parent.entries[last(path)] = newDir()
	}
}

func (m *model) rmdir() {
	path := m.somewhere()
	parent, n, err := m.root.find(path)
	if n != nil && n.kind != store.ModeDir {
		err = store.ErrNotDir
	} else if n != nil && len(n.entries) > 0 {
		err = store.ErrNotEmpty
	}
	m.logf("rmdir %s", path)
	if m.expect(m.tree.Rmdir(m.ctx, m.path(path)), errs(err)...) {
		delete(parent.entries, last(path))
	}
}

func (m *model) rename() {
	from, to := m.somewhere(), m.somewhere()
	mode := store.Replace
	if m.rnd.IntN(3) == 0 {
		mode = store.NoReplace
	}
	fromParent, n, err := m.root.find(from)
	toParent, target, toErr := m.root.find(to)
	wrong := errs(err)
	if toParent == nil && target == nil {
		wrong = append(wrong, toErr)
	}
	if n != nil {
		dir := n.kind == store.ModeDir
		if dir && strings.HasPrefix(to, from+"/") {
			wrong = append(wrong, store.ErrInvalid)
		}
		switch {
		case target == nil:
		case mode == store.NoReplace:
			wrong = append(wrong, store.ErrExist)
		case target == n:
		case dir && target.kind != store.ModeDir:
			wrong = append(wrong, store.ErrNotDir)
		case !dir && target.kind == store.ModeDir:
			wrong = append(wrong, store.ErrIsDir)
		case len(target.entries) > 0:
			wrong = append(wrong, store.ErrNotEmpty)
		}
	}
	m.logf("rename %s %s mode=%d", from, to, mode)
	if m.expect(m.tree.Rename(m.ctx, m.path(from), m.path(to), mode), wrong...) && target != n {
		delete(fromParent.entries, last(from))
		toParent.entries[last(to)] = n
	}
}

func (m *model) symlink() {
	path := m.somewhere()
	parent, n, err := m.root.find(path)
	if n != nil {
		err = store.ErrExist
	} else if parent != nil {
		err = nil
	}
	target := m.bytes()
	m.logf("symlink %s", path)
	_, got := m.tree.Mknod(m.ctx, m.path(path), store.Attr{Mode: store.ModeSymlink | 0o777}, target)
	if m.expect(got, errs(err)...) {
		parent.entries[last(path)] = &node{kind: store.ModeSymlink, mode: 0o777, content: []byte(target)}
	}
}

// chmod changes some attributes, by name or by handle.
func (m *model) chmod() {
	var change store.AttrChange
	var apply []func(*node)
	if m.rnd.IntN(2) == 0 {
		mode := uint32(m.rnd.IntN(0o1000))
		change.Mode = &mode
		apply = append(apply, func(n *node) {
			if n.kind != store.ModeSymlink { // Linux shows 0777, always
				n.mode = mode
			}
		})
	}
	if m.rnd.IntN(2) == 0 {
		uid := uint32(m.rnd.IntN(1000))
		change.UID = &uid
		apply = append(apply, func(n *node) { n.uid = uid })
	}
	if m.rnd.IntN(2) == 0 {
		at := time.Unix(m.rnd.Int64N(2e9)-1e8, m.rnd.Int64N(1e9))
		change.Mtime = &at
		apply = append(apply, func(n *node) { n.mtime = at })
	}
	if m.rnd.IntN(3) == 0 {
		name, value := "user."+m.name(), []byte(m.bytes()[:1])
		change.Xattr = &store.XattrChange{Name: name, Value: value}
		apply = append(apply, func(n *node) {
			n.xattrs = maps.Clone(n.xattrs)
			if n.xattrs == nil {
				n.xattrs = map[string][]byte{}
			}
			n.xattrs[name] = value
		})
	}
	if i, h, ok := m.handle(false); ok && m.rnd.IntN(2) == 0 {
		m.logf("set attributes of handle %d: %+v", i, change)
		_, err := h.f.SetAttr(m.ctx, change)
		if m.expect(err) {
			for _, fn := range apply {
				fn(h.n)
			}
		}
		return
	}
	path := m.somewhere()
	_, n, err := m.root.find(path)
	m.logf("set attributes of %s: %+v", path, change)
	_, got := m.tree.SetAttr(m.ctx, m.path(path), change)
	if m.expect(got, errs(err)...) {
		for _, fn := range apply {
			fn(n)
		}
	}
}

func (m *model) lookupAny() {
	path := m.somewhere()
	_, n, err := m.root.find(path)
	m.logf("lookup %s", path)
	entry, got := m.tree.Lookup(m.ctx, m.path(path))
	if m.expect(got, errs(err)...) {
		m.same(path, entry, n)
	}
}

// overwrite is what another tool does to a file that nobody has open here.
func (m *model) overwrite() {
	path := m.somewhere()
	_, n, _ := m.root.find(path)
	if n == nil || n.kind != store.ModeRegular || n.mode != 0o644 || n.uid != 0 || n.xattrs != nil || slices.ContainsFunc(m.open, func(h opened) bool { return h.n == n }) {
		return
	}
	if slices.ContainsFunc(m.vol.Pending(), func(p store.Pending) bool { return p.Path == path }) {
		m.ok(m.vol.Sync(m.ctx)) // else the two would be in conflict
	}
	content := m.bytes()
	m.logf("another tool writes %s", path)
	_, err := m.raw.Put(m.ctx, "main/"+path, backend.Bytes([]byte(content)), backend.PutOptions{})
	m.expect(err)
	n.content, n.mtime = []byte(content), time.Time{}
	equal(m.env, "content of "+path, m.get0(m.tree, path), content)
}

func last(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

func errs(err error) []error {
	if err == nil {
		return nil
	}
	return []error{err}
}
