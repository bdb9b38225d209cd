package backend_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/mem"
)

func filled(t *testing.T, pageSize int, keys ...string) backend.Backend {
	t.Helper()
	b := mem.New("test", mem.Options{PageSize: pageSize})
	for _, key := range keys {
		if _, err := b.Put(t.Context(), key, backend.Bytes([]byte(key)), backend.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func TestListMergesObjectsAndPrefixes(t *testing.T) {
	for _, pageSize := range []int{1, 2, 3, 100} {
		b := filled(t, pageSize, "a", "a-b", "a/1", "a/2", "b/1", "c", "d/1/2")
		var got []string
		for e, err := range backend.List(t.Context(), b, "") {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprint(e.Key, " ", e.Prefix))
		}
		want := []string{"a false", "a-b false", "a/ true", "b/ true", "c false", "d/ true"}
		if !slices.Equal(got, want) {
			t.Errorf("pages of %d: %q, want %q", pageSize, got, want)
		}
	}
}

// TestListFetchesAsTheCallerProceeds counts requests, and has the second one fail.
func TestListFetchesAsTheCallerProceeds(t *testing.T) {
	requests, failAt := 0, 0
	b := backend.Intercept(filled(t, 2, "a", "b", "c", "d", "e"), func(ctx context.Context, op *backend.Op, next func(context.Context) error) error {
		if requests++; requests == failAt {
			return backend.ErrPermission
		}
		return next(ctx)
	})
	for range backend.ListRecursive(t.Context(), b, "") {
		break
	}
	for range backend.List(t.Context(), b, "") {
		break
	}
	if requests != 2 {
		t.Errorf("%d requests for the first entries of two listings", requests)
	}
	requests, failAt = 0, 2
	var got []string
	var last error
	for info, err := range backend.ListRecursive(t.Context(), b, "") {
		if last != nil {
			t.Error("the listing goes on after an error")
		}
		got, last = append(got, info.Key), err
	}
	if !slices.Equal(got, []string{"a", "b", ""}) || !errors.Is(last, backend.ErrPermission) {
		t.Errorf("%q, %v", got, last)
	}
}

func TestReadAllIsBounded(t *testing.T) {
	b := filled(t, 0, "12345678")
	for limit, want := range map[int64]error{7: backend.ErrTooLarge, 8: nil, 9: nil} {
		data, info, err := backend.ReadAll(t.Context(), b, "12345678", limit)
		if !errors.Is(err, want) || want == nil && (string(data) != "12345678" || info.ETag == "") {
			t.Errorf("limit %d: %q, %+v, %v", limit, data, info, err)
		}
	}
	if _, _, err := backend.ReadAll(t.Context(), b, "none", 10); !errors.Is(err, backend.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func TestExistsTellsFailureFromAbsence(t *testing.T) {
	inner := filled(t, 0, "a")
	for key, want := range map[string]bool{"a": true, "b": false} {
		if got, err := backend.Exists(t.Context(), inner, key); got != want || err != nil {
			t.Errorf("%s: %v, %v", key, got, err)
		}
	}
	b := backend.Intercept(inner, func(context.Context, *backend.Op, func(context.Context) error) error {
		return backend.ErrUnreachable
	})
	if got, err := backend.Exists(t.Context(), b, "a"); got || !errors.Is(err, backend.ErrUnreachable) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestSectionIsPartOfASource(t *testing.T) {
	src := backend.Section(backend.Bytes([]byte("0123456789")), 3, 4)
	data := make([]byte, 10)
	n, err := src.ReadAt(data, 1)
	if src.Size() != 4 || string(data[:n]) != "456" || err != io.EOF {
		t.Errorf("%d bytes, %q, %v", src.Size(), data[:n], err)
	}
}

func TestPriorityIsInteractiveUnlessSaid(t *testing.T) {
	if got := backend.PriorityOf(t.Context()); got != backend.Interactive {
		t.Errorf("%v", got)
	}
	ctx := backend.WithPriority(t.Context(), backend.Background)
	if got := backend.PriorityOf(ctx); got != backend.Background {
		t.Errorf("%v", got)
	}
}
