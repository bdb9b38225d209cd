package fs

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/keifs/keifs/store"
)

// Flags of setxattr(2).
const (
	xattrCreate  = 1
	xattrReplace = 2
)

// stateXattr says of a file whether the bucket has it: clean, or else dirty,
// uploading or failed. No object keeps it, and it is not listed, so that no
// program copies it.
const stateXattr = "user.keifs.state"

// userXattr says whether the store keeps attributes of that name. The others
// (security labels, ACLs) are refused without asking it: the kernel and ls look
// for them everywhere.
func userXattr(name string) error {
	if !strings.HasPrefix(name, "user.") {
		return store.ErrUnsupported
	}
	return nil
}

// Getxattr implements gofs.NodeGetxattrer.
func (n *node) Getxattr(ctx context.Context, name string, dest []byte) (uint32, errno) {
	value, err := n.xattr(ctx, name)
	if err == nil && len(value) > len(dest) {
		err = errRange
	}
	copy(dest, value)
	return uint32(len(value)), n.errno("getxattr", err)
}

func (n *node) xattr(ctx context.Context, name string) ([]byte, error) {
	if err := userXattr(name); err != nil {
		return nil, err
	}
	ctx, done := n.m.patient(ctx)
	defer done()
	e, err := n.entry(ctx)
	if err != nil {
		return nil, err
	}
	if name == stateXattr && e.IsRegular() {
		return []byte(cmp.Or(e.State, "clean")), nil
	}
	value, ok := e.Xattrs[name]
	if !ok {
		return nil, store.ErrNoXattr
	}
	return value, nil
}

// Listxattr implements gofs.NodeListxattrer.
func (n *node) Listxattr(ctx context.Context, dest []byte) (uint32, errno) {
	ctx, done := n.m.patient(ctx)
	defer done()
	e, err := n.entry(ctx)
	if err != nil {
		return 0, n.errno("listxattr", err)
	}
	var list []byte
	for _, name := range slices.Sorted(maps.Keys(e.Xattrs)) {
		if userXattr(name) == nil && name != stateXattr { // other tools may have stored what they like
			list = append(append(list, name...), 0)
		}
	}
	if len(list) > len(dest) {
		err = errRange
	}
	copy(dest, list)
	return uint32(len(list)), n.errno("listxattr", err)
}

// Setxattr implements gofs.NodeSetxattrer.
func (n *node) Setxattr(ctx context.Context, name string, value []byte, flags uint32) errno {
	// go-fuse uses the memory again, and an empty value is one.
	return n.errno("setxattr", n.changeXattr(ctx, store.XattrChange{
		Name: name, Value: append([]byte{}, value...),
		Create: flags&xattrCreate != 0, Replace: flags&xattrReplace != 0,
	}))
}

// Removexattr implements gofs.NodeRemovexattrer.
func (n *node) Removexattr(ctx context.Context, name string) errno {
	return n.errno("removexattr", n.changeXattr(ctx, store.XattrChange{Name: name, Replace: true}))
}

func (n *node) changeXattr(ctx context.Context, change store.XattrChange) error {
	if err := userXattr(change.Name); err != nil {
		return err
	}
	if change.Name == stateXattr {
		return errNotPermitted
	}
	_, err := n.setAttr(steadfast(ctx), nil, store.AttrChange{Xattr: &change})
	if errors.Is(err, store.ErrTooBig) {
		return errXattrSpace
	}
	return err
}
