package backend_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/keifs/keifs/backend"
)

func TestCheckPutRefusesWhatNoStoreTakes(t *testing.T) {
	caps := backend.Caps{MaxPut: 10, MaxKey: 5, MaxMetadata: 8}
	for _, test := range []struct {
		key  string
		size int64
		opts backend.PutOptions
		want error
	}{
		{"a", 10, backend.PutOptions{Metadata: map[string]string{"a-b_9": "x y"}}, nil},
		{"12345", -1, backend.PutOptions{Cond: backend.Cond{IfAbsent: true}}, nil},
		{"", 0, backend.PutOptions{}, backend.ErrBadKey},
		{"123456", 0, backend.PutOptions{}, backend.ErrBadKey},
		{"a", 11, backend.PutOptions{}, backend.ErrTooLarge},
		{"a", 0, backend.PutOptions{Metadata: map[string]string{"abcd": "12345"}}, backend.ErrTooLarge},
		{"a", 0, backend.PutOptions{Metadata: map[string]string{"A": ""}}, backend.ErrInvalid},
		{"a", 0, backend.PutOptions{Metadata: map[string]string{"": "a"}}, backend.ErrInvalid},
		{"a", 0, backend.PutOptions{Metadata: map[string]string{"a": "b\n"}}, backend.ErrInvalid},
		{"a", 0, backend.PutOptions{Metadata: map[string]string{"a": "b "}}, backend.ErrInvalid},
		{"a", 0, backend.PutOptions{Cond: backend.Cond{IfAbsent: true, IfMatch: "x"}}, backend.ErrInvalid},
	} {
		if err := caps.CheckPut("put", test.key, test.size, test.opts); !errors.Is(err, test.want) {
			t.Errorf("%q, %d bytes, %+v: %v, want %v", test.key, test.size, test.opts, err, test.want)
		}
	}
	none := backend.Caps{}
	if err := none.CheckPut("put", strings.Repeat("x", 5000), 1<<50, backend.PutOptions{}); err != nil {
		t.Errorf("without limits: %v", err)
	}
}
