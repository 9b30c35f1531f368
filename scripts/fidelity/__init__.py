"""Our network beside the families' own: stage by stage on recorded outputs, end to end beside torchvision's code."""
