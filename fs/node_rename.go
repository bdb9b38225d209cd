package fs

import (
	"context"
	"errors"

	gofs "github.com/hanwen/go-fuse/v2/fs"

	"github.com/keifs/keifs/store"
)

// Flags of renameat2(2).
const (
	renameNoReplace = 1
	renameExchange  = 2
)

// Rename implements gofs.NodeRenamer.
func (d *dirNode) Rename(ctx context.Context, name string, newParent gofs.InodeEmbedder, newName string, flags uint32) errno {
	to, ok := newParent.(*dirNode)
	if !ok {
		return d.errno("rename", store.ErrNotDir)
	}
	return d.errno("rename", d.rename(steadfast(ctx), name, to, newName, flags))
}

func (d *dirNode) rename(ctx context.Context, name string, to *dirNode, newName string, flags uint32) error {
	var mode store.RenameMode
	switch flags {
	case 0:
		mode = store.Replace
	case renameNoReplace:
		mode = store.NoReplace
	case renameExchange:
		mode = store.Exchange
	default:
		return store.ErrInvalid
	}
	if d.isRoot() && to.isRoot() {
		return errNotPermitted // a branch keeps its name, and files outside branches stay as they are
	}

	places := d.m.places
	var moved, other *node
	if n := d.member(name); n != nil {
		moved = n.base()
	}
	if n := to.member(newName); n != nil {
		other = n.base()
	}
	if other != nil {
		defer other.change()()
	}
	if moved != nil {
		defer moved.change()()
	}
	places.begin(moved, other)
	_, err := at(ctx, &d.node, func(from place) (nothing, error) {
		source, err := from.child(name)
		if err != nil {
			return nothing{}, err
		}
		return at(ctx, &to.node, func(into place) (nothing, error) {
			if from.name != into.name {
				return nothing{}, errCross
			}
			target, err := into.child(newName)
			if err != nil {
				return nothing{}, err
			}
			return nothing{}, from.tree.Rename(ctx, source, target, mode)
		})
	})
	if err != nil {
		places.end(moved, other, nil)
		if flags != 0 && errors.Is(err, store.ErrUnsupported) {
			return store.ErrInvalid // as rename(2) has it for a flag; programs then do without
		}
		return err
	}
	places.end(moved, other, func() {
		switch {
		case other == nil:
		case mode == store.Exchange:
			other.parent, other.name = d, name
		default:
			other.gone, other.heir = true, heir{dir: to, name: newName}
		}
		if moved != nil {
			moved.parent, moved.name = to, newName
		}
	})
	return nil
}
