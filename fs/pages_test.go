package fs

import (
	"context"
	"testing"

	"github.com/keifs/keifs/backend/mem"
	"github.com/keifs/keifs/store"
)

// statFile is an open file of which only the attributes matter.
type statFile struct {
	store.File
	stat func() (store.Entry, error)
}

func (f statFile) Stat(context.Context) (store.Entry, error) { return f.stat() }

func TestAttributesCanBeAskedForWhileAFileIsClosed(t *testing.T) {
	n := &fileNode{node: node{m: newMounted(direct(t, mem.New("", mem.Options{})), Options{})}}
	var closing *handle
	closing, _ = n.attach(statFile{stat: func() (store.Entry, error) {
		n.detach(closing)
		return store.Entry{}, store.ErrClosed
	}}, store.Entry{}, 0)
	other, _ := n.attach(statFile{stat: func() (store.Entry, error) { return store.Entry{Size: 7}, nil }}, store.Entry{}, 0)
	if e, open, err := n.held(t.Context()); !open || err != nil || e.Size != 7 {
		t.Errorf("by the other handle: %d, %v, %v", e.Size, open, err)
	}
	n.detach(other)
	if _, open, err := n.held(t.Context()); open || err != nil {
		t.Errorf("without a handle: %v, %v", open, err)
	}
}

func TestAnotherVersionIsAnotherLineage(t *testing.T) {
	n := &fileNode{node: node{m: newMounted(direct(t, mem.New("", mem.Options{})), Options{})}}
	version := "1"
	file := statFile{stat: func() (store.Entry, error) { return store.Entry{Version: version}, nil }}
	if n.lineage().endedBy(store.Entry{Version: "2"}) {
		t.Error("without a handle there is none to end")
	}
	h, _ := n.attach(file, store.Entry{Version: "1"}, 0)
	seen := n.lineage()
	if seen.endedBy(store.Entry{Version: "1"}) || !seen.endedBy(store.Entry{Version: "2"}) {
		t.Error("only another version ends it")
	}
	done := n.change() // as a chmod here, which makes a new version of the same content
	if seen.endedBy(store.Entry{Version: "2"}) || n.lineage().endedBy(store.Entry{Version: "2"}) {
		t.Error("ended by a change of its own")
	}
	version = "2"
	done()
	if seen.endedBy(store.Entry{Version: "2"}) {
		t.Error("what was seen before the change is compared with what came after")
	}
	if now := n.lineage(); now.endedBy(store.Entry{Version: "2"}) || !now.endedBy(store.Entry{Version: "1"}) {
		t.Error("the new version is its own")
	}
	n.detach(h)
}
