package undo

import (
	"errors"
	"slices"
	"testing"
)

func TestRunGoesBackwardsAndJoins(t *testing.T) {
	var s Stack
	var order []int
	errOne, errThree := errors.New("one"), errors.New("three")
	for i, err := range []error{errOne, nil, errThree} {
		s.Push(func() error { order = append(order, i); return err })
	}
	err := s.Run()
	if want := []int{2, 1, 0}; !slices.Equal(order, want) {
		t.Errorf("order = %v, want %v", order, want)
	}
	if !errors.Is(err, errOne) || !errors.Is(err, errThree) {
		t.Errorf("Run() = %v, want both errors", err)
	}
	if err := s.Run(); err != nil || len(order) != 3 {
		t.Errorf("second Run() = %v after %d steps, want nothing to do", err, len(order))
	}
}

func TestDiscard(t *testing.T) {
	var s Stack
	s.Push(func() error { t.Error("ran after Discard"); return nil })
	s.Discard()
	if err := s.Run(); err != nil {
		t.Errorf("Run() = %v, want nil", err)
	}
}
