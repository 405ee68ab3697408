"""Backbones: the registry, the stems for small images, and weight transfer; importing this loads no torch."""

from visionforge.models.registry import BackboneEntry, backbone_entry, backbone_names, register_backbone

__all__ = ["BackboneEntry", "backbone_entry", "backbone_names", "register_backbone"]
